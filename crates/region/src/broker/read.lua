-- Reads where a channel stands and a part of its history.
--
-- KEYS[3] pos (hash) · [4] hist (stream) · [5] begun (bitmap) · [6] cursor (hash), if there are other regions
-- ARGV[3] `head`, `backward` or `forward`
--     [4] the bound, exclusive or `+`
--     [5] `count:room:look`: the most entries; the most bytes of payloads that are answered, and that are looked at.
--         What has no room comes with `null` for a payload. One entry comes in any case, whole if there is any room
--     [6] history_age_ms
--     [7] the other regions, separated by commas
--     [8] channel
--     [9] this region's name
--    [10] position_age_ms
-- then pairs of origin and `epoch:offset`: what the reader has seen, when reading backward. No more is read than it
--   misses.
-- Answers {
--   life,
--   the epoch in which the channel goes on if this region has no position there,
--   positions,
--   entries,
--   how many entries were to be read: fewer than `count` if the reader misses fewer, or no more may be looked at,
--   how many of them are whole,
--   of each origin that was filled in: where it stood then,
--   the regions of which more is to come that was published before,
--   1 if another life is due, of which nothing can be told,
--   of each origin that went on in an earlier epoch: the latest that it left,
--   of each region of whose earlier lives nothing is to come: where its present one begins,
--   1 if the positions stay longer from now on,
--   of each origin that left an epoch: the first that it left }.
local positions, filled, coming, latest, beginnings, firsts = {}, {}, {}, {}, {}, {}
local known = {}
local stored = redis.call('HGETALL', KEYS[3])
for index = 1, #stored, 2 do
  local region, state = string.match(stored[index], '^([^ ]*) (.*)$')
  if not region then
    positions[#positions + 1], positions[#positions + 2] = stored[index], stored[index + 1]
    known[stored[index]] = true
  elseif state == 'filled' then
    filled[#filled + 1], filled[#filled + 2] = region, stored[index + 1]
  elseif state == 'latest' then
    latest[#latest + 1], latest[#latest + 2] = region, stored[index + 1]
  elseif state == 'first' then
    firsts[#firsts + 1], firsts[#firsts + 2] = region, stored[index + 1]
  end
end
-- Whoever reads may stand here for as long as nothing is published, and comes again within a day. A position whose time
-- is over by a quarter gets the whole time again. So there are several occasions to renew it in the other regions, too,
-- should one be away.
local left_ms = tonumber(redis.pcall('PTTL', KEYS[3])) or -1
local is_renewed = left_ms >= 0 and left_ms < tonumber(ARGV[10]) * 3 / 4
  and redis.pcall('PEXPIRE', KEYS[3], ARGV[10]) == 1
-- Where a region stands of which nothing is known yet is not its beginning: what it published before is old.
if KEYS[6] then
  for region in string.gmatch(ARGV[7], '[^,]+') do
    local held = redis.call('HMGET', KEYS[6], region, region .. ':replay')
    if not held[1] and not known[region] then
      positions[#positions + 1], positions[#positions + 2] = region, 'unknown:0'
    end
    local began_in = held[1] and not held[2] and reached_life(held[1])
    if began_in then
      beginnings[#beginnings + 1], beginnings[#beginnings + 2] = region, began_in .. '.e1:0'
    end
    -- Channels that were filled in may stand further on than what was delivered.
    if not held[1] or held[2] then
      coming[#coming + 1] = region
    end
  end
end

-- As publish.lua will have it. An epoch of the channel's own is taken now, where Redis takes writes: who is told of it
-- stands there until something is published.
local function goes_on_in()
  for index = 2, #positions, 2 do
    if is_of_life(positions[index]) then
      return fresh_epoch()
    end
  end
  local epoch, is_own = next_epoch(KEYS[5], places_of(ARGV[8]))
  if is_own and not over and take_epoch() then
    leave_life(KEYS[3], ARGV[9], redis.call('HGET', KEYS[3], ARGV[9]))
    redis.call('HSET', KEYS[3], ARGV[9], epoch .. ':0')
    redis.call('PEXPIRE', KEYS[3], ARGV[10])
  end
  return epoch
end

local count, room, look = string.match(ARGV[5], '^(%d+):(%d+):(%d+)$')
count, room, look = tonumber(count), tonumber(room), tonumber(look)
local whole = 0

-- How many publications lie between the reader's position and the head; nil when that cannot be told.
local function missing()
  local seen = {}
  for index = 11, #ARGV, 2 do
    seen[ARGV[index]] = ARGV[index + 1]
  end
  local sum = 0
  for index = 1, #positions, 2 do
    local head_epoch, head_offset = string.match(positions[index + 1], '^(.*):(%d+)$')
    local epoch, offset = string.match(seen[positions[index]] or '', '^(.*):(%d+)$')
    if not epoch or epoch ~= head_epoch then
      return nil
    end
    sum = sum + math.max(0, tonumber(head_offset) - tonumber(offset))
  end
  for index = 1, #beginnings, 2 do
    -- Its epoch is over, wherever the channel stands.
    local epoch = string.match(seen[beginnings[index]] or '', '^(.*):%d+$')
    if epoch and not is_of(string.match(beginnings[index + 1], '^[^.]*'), epoch) then
      return nil
    end
  end
  return sum
end

-- Takes an entry with its payload, the last of its fields, if there is room.
local function take(read, entry)
  local fields = entry[2]
  local size = #fields[#fields]
  if whole == #read and (size <= room or #read == 0 and room > 0) then
    whole, room = whole + 1, room - size
  else
    fields[#fields] = 'null'
  end
  read[#read + 1] = entry
end

-- Reads in steps, so that little more is looked at than is to be.
local STEP = 8
local function read_from(command, from, to)
  local read, more = {}, true
  while more and #read < count do
    local step = redis.call(command, KEYS[4], from, to, 'COUNT', math.min(STEP, count - #read))
    more = #step == STEP
    for _, entry in ipairs(step) do
      look = look - #entry[2][#entry[2]]
      if look < 0 and #read > 0 then
        count = #read
        return read
      end
      take(read, entry)
      from = '(' .. entry[1]
    end
  end
  return read
end

local oldest_ms = math.max(0, now_ms - tonumber(ARGV[6]))
local oldest = string.format('%.0f', oldest_ms)
local entries = {}
if ARGV[3] == 'backward' then
  if #ARGV > 10 then
    count = math.min(count, missing() or count)
  end
  if count > 0 then
    entries = read_from('XREVRANGE', ARGV[4], oldest)
  end
elseif ARGV[3] == 'forward' then
  local bound = ARGV[4]
  if tonumber(string.match(bound, '^%(?(%d+)')) < oldest_ms then
    bound = oldest
  end
  entries = read_from('XRANGE', bound, '+')
end
return { life, goes_on_in(), positions, entries, count, whole, filled, coming, over and '1' or '0', latest, beginnings,
  is_renewed and '1' or '0', firsts }
