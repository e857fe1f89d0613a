-- Accepts a publication, or answers a known key with its first position.
--
-- KEYS[3] pos (hash) · KEYS[4] hist (stream) · KEYS[5] begun (bitmap) · KEYS[6] key, if the publication has one
-- ARGV[3] origin · [4] channel · [5] flags · [6] key · [7] user · [8] payload
-- ARGV[9] history (publications) · [10] history_age_ms
-- ARGV[11] log_age_ms; empty when the log is another region's, whose own nodes know its age · [12] log_length
-- ARGV[13] position_age_ms · [14] key_age_ms
-- ARGV[15] where other regions hear of it: they may know of this one before all of its nodes know of them
-- Answers {epoch, offset, 1 if the key was known, the origin, life}: another region's publication may have had the key.
if KEYS[6] then
  local known = redis.call('GET', KEYS[6])
  if known then
    local origin, epoch, offset = string.match(known, '^([^ :]+) (.*):(%d+)$')
    if not origin then
      origin, epoch, offset = ARGV[3], string.match(known, '^(.*):(%d+)$')
    end
    if epoch then
      return { epoch, offset, 1, origin, life }
    end
  end
end

local epoch, offset
local last = redis.call('HGET', KEYS[3], ARGV[3])
local is_whole = not last and begins_whole(KEYS[3], KEYS[4], ARGV[9])
if last then
  local last_epoch, last_offset = string.match(last, '^(.*):(%d+)$')
  if last_epoch and is_of_life(last_epoch) then
    epoch, offset = last_epoch, tonumber(last_offset) + 1
  end
end
if not epoch then
  local places, is_own = places_of(ARGV[4])
  epoch, is_own = next_epoch(KEYS[5], places)
  if not is_own then
    mark_begun(KEYS[5], places, epoch)
  elseif not take_epoch() then
    return refused
  end
  offset = 1
end
local offset_text = string.format('%.0f', offset)
local point = epoch .. ':' .. offset_text

-- The milliseconds of an entry's id are its time, unless `t` says another.
local function append(key, strategy, precision, threshold, id, time)
  return redis.pcall('XADD', key, strategy, precision, threshold, id,
    'c', ARGV[4], 'o', ARGV[3], 'e', epoch, 'n', offset_text, 't', time,
    'f', ARGV[5], 'k', ARGV[6], 'u', ARGV[7], 'd', ARGV[8])
end

local oldest_ms = 0
if ARGV[11] ~= '' then
  oldest_ms = math.max(0, now_ms - tonumber(ARGV[11]))
end
local id = append(KEYS[2], 'MINID', '~', string.format('%.0f', oldest_ms), '*', '')
if type(id) == 'table' then
  return id
end
log_begins()
if redis.call('XLEN', KEYS[2]) > tonumber(ARGV[12]) then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[12])
end
if tonumber(ARGV[9]) > 0 then
  local remembered = append(KEYS[4], 'MAXLEN', '=', ARGV[9], id, '')
  if type(remembered) == 'table' then
    -- The log was lost and the clock stands behind: the history's ids are ahead of the log's.
    remembered = append(KEYS[4], 'MAXLEN', '=', ARGV[9], '*', string.match(id, '^%d+'))
    if type(remembered) == 'table' then
      return remembered
    end
  end
  redis.call('PEXPIRE', KEYS[4], ARGV[10])
end
-- Where it stands in the log: for those whom the log cannot tell any more that this was the last.
redis.call('HSET', KEYS[3], ARGV[3], point, ARGV[3] .. ' at', id)
if is_whole then
  mark_whole(KEYS[3])
end
leave_life(KEYS[3], ARGV[3], last)
redis.call('PEXPIRE', KEYS[3], ARGV[13])
if KEYS[6] then
  redis.call('SET', KEYS[6], point, 'PX', ARGV[14])
end
-- Whoever misses this finds it in the log, and knows by the count that it missed something.
redis.call('HSET', KEYS[1], 'out', id)
local count = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'own', 1))
-- Each byte crosses an ocean: so there are no names, and of the epoch only what follows the life. What versions add
-- stands behind the payload: the count, and the origin, as a region may have been renamed.
local message = struct.pack('>Bc0Bc0Bc0Bc0Bc0Bc0Bc0Bc0I4c0Bc0Bc0', #life, life, #id, id, #ARGV[4], ARGV[4],
  #epoch - #life - 1, string.sub(epoch, #life + 2), #offset_text, offset_text, #ARGV[5], ARGV[5],
  #ARGV[6], ARGV[6], #ARGV[7], ARGV[7], #ARGV[8], ARGV[8], #count, count, #ARGV[3], ARGV[3])
redis.call('PUBLISH', ARGV[15], message)
return { epoch, offset_text, 0, ARGV[3], life }
