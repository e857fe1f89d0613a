-- Applies publications of another region, each once and in their order, and moves the cursor with them.
--
-- KEYS[3] cursor (hash) · then for each entry: pos (hash) · hist (stream) · key, if its flags hold `k`
-- ARGV[3] the other region · [4] the leader's token · [5] the cursor as the leader knows it · [6] where it goes
-- ARGV[7] `log`, or `live`: then it stops before a publication that does not follow the one before
-- ARGV[8] log_age_ms · [9] log_length · [10] where a replay ends that begins with this call, or ''
-- ARGV[11] where one that goes on ends at the latest, as the log may have been set back, or ''
-- then for each entry:
-- the cursor after it · channel · epoch · offset · time · flags · key · user · payload
-- history (publications) · history_age_ms · position_age_ms · key_age_ms
-- Answers {`fenced`, the token to be exceeded}, {`moved`, where the cursor is}, or
-- {`ok` or `stopped`, how many were applied, how many were known, how many do not follow the one before}.
--
-- A replay follows a filling: channels may stand further on than the cursor, since they were looked at later. Until it
-- ends, an entry is new because it lies behind the cursor, and readers are not told that anything is missing.
-- `REGION filling` tells what the history holds of it already.
local FIRST_KEY, FIRST_ARGUMENT, ARGUMENTS = 4, 12, 13
local region, cursor = ARGV[3], ARGV[5]

local held = redis.call('HMGET', KEYS[3], region, region .. ':fence', region .. ':replay')
local refused = refusal(KEYS[3], region, ARGV[4], held[2]) or moved(held[1], cursor)
if refused then
  return refused
end

local replay = held[3] or nil
if ARGV[10] ~= '' then
  replay = ARGV[10]
  redis.call('HSET', KEYS[3], region .. ':replay', replay)
elseif replay and ARGV[11] ~= '' and is_before(ARGV[11], replay) then
  replay = ARGV[11]
  redis.call('HSET', KEYS[3], region .. ':replay', replay)
end

-- Whether the replay goes as far as a cursor, which is `life id count`.
local function is_replayed(text)
  local id, last = string.match(text, ' (%d+%-%d+) '), string.match(replay or '', '^%d+%-%d+$')
  return id and last and not is_before(last, id)
end

local points, position_ages, history_ages, fillings = {}, {}, {}, {}

local function point_of(key, hist, kept)
  local point = points[key]
  if not point then
    local stands = redis.call('HMGET', key, region, region .. ' filling')
    local epoch, offset = string.match(stands[1] or '', '^(.*):(%d+)$')
    point = { epoch = epoch, offset = tonumber(offset or nil) or 0, filling = stands[2] }
    point.is_whole = not stands[1] and begins_whole(key, hist, kept)
    points[key] = point
  end
  return point
end

local log_minimum = string.format('%.0f', math.max(0, now_ms - tonumber(ARGV[8])))
local function append(key, strategy, precision, threshold, id, at)
  return redis.pcall('XADD', key, strategy, precision, threshold, id,
    'c', ARGV[at + 1], 'o', region, 'e', ARGV[at + 2], 'n', ARGV[at + 3], 't', ARGV[at + 4],
    'f', ARGV[at + 5], 'k', ARGV[at + 6], 'u', ARGV[at + 7], 'd', ARGV[at + 8])
end

local applied, known, gaps, stopped, failure = 0, 0, 0, false, nil
local reached, key_index = cursor, FIRST_KEY
for at = FIRST_ARGUMENT, #ARGV, ARGUMENTS do
  local pos, hist = KEYS[key_index], KEYS[key_index + 1]
  local idempotency = nil
  key_index = key_index + 2
  if string.find(ARGV[at + 5], 'k', 1, true) then
    idempotency = KEYS[key_index]
    key_index = key_index + 1
  end
  local point, epoch, offset = point_of(pos, hist, ARGV[at + 9]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local is_behind = point.epoch == epoch and offset <= point.offset
  local replayed = is_replayed(ARGV[at])
  if is_behind and not replayed then
    known = known + 1
  else
    local follows = offset == 1 or point.epoch == epoch and offset == point.offset + 1
    if not follows and not replayed then
      if ARGV[7] == 'live' then
        stopped = true
        break
      end
      gaps = gaps + 1
    end
    local id = append(KEYS[2], 'MINID', '~', log_minimum, '*', at)
    if type(id) == 'table' then
      failure = id
      break
    end
    local is_remembered = replayed and is_past(epoch, ARGV[at + 3], point.filling)
    if tonumber(ARGV[at + 9]) > 0 and not is_remembered then
      local remembered = append(hist, 'MAXLEN', '=', ARGV[at + 9], id, at)
      if type(remembered) == 'table' then
        -- The log was lost and the clock stands behind: the history's ids are ahead of the log's.
        append(hist, 'MAXLEN', '=', ARGV[at + 9], '*', at)
      end
      history_ages[hist] = ARGV[at + 10]
      if point.filling then
        point.filling, fillings[pos] = replayed and epoch .. ':' .. ARGV[at + 3], true
      end
    end
    if idempotency then
      redis.call('SET', idempotency, region .. ' ' .. epoch .. ':' .. ARGV[at + 3], 'NX', 'PX', ARGV[at + 12])
    end
    if not is_behind then
      if not replayed then
        leave_epoch(pos, region, point.epoch, epoch)
      end
      point.epoch, point.offset, point.text = epoch, offset, ARGV[at + 3]
      position_ages[pos] = ARGV[at + 11]
    end
    applied = applied + 1
  end
  reached = ARGV[at]
end

for key, age in pairs(position_ages) do
  redis.call('HSET', key, region, points[key].epoch .. ':' .. points[key].text)
  if points[key].is_whole then
    mark_whole(key)
  end
  redis.call('PEXPIRE', key, age)
end
for key in pairs(fillings) do
  if points[key].filling then
    redis.call('HSET', key, region .. ' filling', points[key].filling)
  else
    redis.call('HDEL', key, region .. ' filling')
  end
end
for key, age in pairs(history_ages) do
  redis.call('PEXPIRE', key, age)
end
if applied > 0 then
  log_begins()
  if redis.call('XLEN', KEYS[2]) > tonumber(ARGV[9]) then
    redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[9])
  end
end
if not stopped and not failure then
  reached = ARGV[6]
end
if reached ~= cursor then
  redis.call('HSET', KEYS[3], region, reached)
  if replay and (not is_replayed(reached) or string.find(reached, ' ' .. replay .. ' ', 1, true)) then
    redis.call('HDEL', KEYS[3], region .. ':replay')
  end
end
if failure and applied == 0 then
  return failure
end
local outcome = 'ok'
if stopped or failure then
  outcome = 'stopped'
end
return { outcome, tostring(applied), tostring(known), tostring(gaps) }
