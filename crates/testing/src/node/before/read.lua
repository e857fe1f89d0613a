-- Reads where a channel stands and a part of its history.
--
-- KEYS[3] pos (hash) · KEYS[4] hist (stream) · KEYS[5] cursor (hash), if there are other regions
-- ARGV[3] `head`, `backward` or `forward` · [4] the bound, exclusive or `+` · [5] count
-- ARGV[6] history_age_ms · [7] the other regions, separated by commas · then pairs of origin and `epoch:offset`: what the reader has seen, when reading
-- backward; no more is read than it misses.
-- Answers {life, epoch of an origin without position, positions, entries, the count that was asked for, for each origin
-- that was filled in where it stood then, the regions of which more is to come that was published before}.
local positions, filled, coming = {}, {}, {}
local known = {}
local stored = redis.call('HGETALL', KEYS[3])
for index = 1, #stored, 2 do
  local region, state = string.match(stored[index], '^([^ ]*) (.*)$')
  if not region then
    positions[#positions + 1], positions[#positions + 2] = stored[index], stored[index + 1]
    known[stored[index]] = true
  elseif state == 'filled' then
    filled[#filled + 1], filled[#filled + 2] = region, stored[index + 1]
  end
end
-- Where a region stands of which nothing is known yet is not its beginning: what it published before is old.
if KEYS[5] then
  for region in string.gmatch(ARGV[7], '[^,]+') do
    local held = redis.call('HMGET', KEYS[5], region, region .. ':replay')
    if not held[1] and not known[region] then
      positions[#positions + 1], positions[#positions + 2] = region, 'unknown:0'
    end
    -- Channels that were filled in may stand further on than what was delivered.
    if not held[1] or held[2] then
      coming[#coming + 1] = region
    end
  end
end
local count = tonumber(ARGV[5])

-- How many publications lie between the reader's position and the head; nil when that cannot be told.
local function missing()
  local seen = {}
  for index = 8, #ARGV, 2 do
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
  return sum
end

local oldest_ms = math.max(0, now_ms - tonumber(ARGV[6]))
local oldest = string.format('%.0f', oldest_ms)
local entries = {}
if ARGV[3] == 'backward' then
  if #ARGV > 7 then
    count = math.min(count, missing() or count)
  end
  if count > 0 then
    entries = redis.call('XREVRANGE', KEYS[4], ARGV[4], oldest, 'COUNT', count)
  end
elseif ARGV[3] == 'forward' then
  local bound = ARGV[4]
  if tonumber(string.match(bound, '^%(?(%d+)')) < oldest_ms then
    bound = oldest
  end
  entries = redis.call('XRANGE', KEYS[4], bound, '+', 'COUNT', count)
end
return { life, fresh_epoch, positions, entries, count, filled, coming }
