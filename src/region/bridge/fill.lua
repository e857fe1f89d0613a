-- Remembers what another region published on a channel before the link began, without delivering it.
--
-- KEYS[1] cursor (hash) · KEYS[2] pos (hash) · KEYS[3] hist (stream)
-- ARGV[1] the other region · [2] the leader's token · [3] where the channel stands there, or '' when more follows
-- ARGV[4] channel · [5] history (publications) · [6] history_age_ms · [7] position_age_ms · [8] before which entry of
-- the history what is remembered there is looked for, or `+` · then for each publication, oldest first:
-- epoch · offset · time · flags · key · user · payload
-- Answers {`ok`}, {`looked`, before which entry to look on}: then nothing was done yet, {`moved`, where the cursor is} when
-- the link has begun, or {`fenced`, the token to be exceeded}.
--
-- In pos, `REGION filling` is how far the history goes, be it less far than the position, until something is applied that is
-- not replayed, and `REGION filled` where the channel stood when its filling was finished: whoever subscribed before is told
-- of a gap up to there.
local FIRST_ARGUMENT, ARGUMENTS = 9, 7
local region = ARGV[1]
local held = redis.call('HMGET', KEYS[1], region, region .. ':fence')
local refused = refusal(KEYS[1], region, ARGV[2], held[2]) or moved(held[1], '')
if refused then
  return refused
end

-- The newest of the region that the history holds before an entry, as it would stand in pos. Redis does nothing else
-- meanwhile: after so many entries, before which one to look on.
local LOOKED_AT, STEP = 192, 32
local function newest_before(bound)
  for _ = 1, LOOKED_AT / STEP do
    local part = redis.call('XREVRANGE', KEYS[3], bound, '-', 'COUNT', STEP)
    for _, entry in ipairs(part) do
      if field(entry[2], 'o', 3) == region then
        return field(entry[2], 'e', 5) .. ':' .. field(entry[2], 'n', 7)
      end
      bound = '(' .. entry[1]
    end
    if #part < STEP then
      return nil
    end
  end
  return nil, bound
end

local stands = redis.call('HMGET', KEYS[2], region .. ' filling', region)
local last = stands[1] or stands[2]
local has_history = tonumber(ARGV[5]) > 0
if not last and has_history then
  -- A position that was evicted leaves its history, and others may have published since.
  local look_on
  last, look_on = newest_before(ARGV[8])
  if look_on then
    return { 'looked', look_on }
  end
end

-- A history of several epochs is gone through from its beginning.
for at = FIRST_ARGUMENT, #ARGV, ARGUMENTS do
  if not is_past(ARGV[at], ARGV[at + 1], last) then
    redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[5], '*', 'c', ARGV[4], 'o', region, 'e', ARGV[at],
      'n', ARGV[at + 1], 't', ARGV[at + 2], 'f', ARGV[at + 3], 'k', ARGV[at + 4], 'u', ARGV[at + 5],
      'd', ARGV[at + 6])
    last = ARGV[at] .. ':' .. ARGV[at + 1]
    redis.call('HSET', KEYS[2], region .. ' filling', last)
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[6])
if ARGV[3] ~= '' then
  leave_epoch(KEYS[2], region, string.match(stands[2] or '', '^(.*):'), string.match(ARGV[3], '^(.*):') or '')
  redis.call('HSET', KEYS[2], region, ARGV[3], region .. ' filled', ARGV[3])
  if has_history then
    redis.call('HSET', KEYS[2], region .. ' filling', last or '')
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return { 'ok' }
