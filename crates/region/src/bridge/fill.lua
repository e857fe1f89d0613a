-- Remembers what another region published on a channel before the link began, without delivering it.
--
-- KEYS[1] cursor (hash) · KEYS[2] pos (hash) · KEYS[3] hist (stream)
-- ARGV[1] the other region
--     [2] the leader's token
--     [3] where the channel stands there, or '' when more follows
--     [4] channel · [5] history (publications) · [6] history_age_ms · [7] position_age_ms
--     [8] how far the history goes, as in pos; '' where it holds nothing of the region, `?` where nobody has looked
-- then for each publication, oldest first: epoch · offset · time · flags · key · user · payload
-- Answers {`ok`}; {`look`} where it has to be told how far the history goes: then nothing was done yet; {`moved`, where
-- the cursor is} when the link has begun; or {`fenced`, the token to be exceeded}.
--
-- In pos, `REGION filling` is how far the history goes, which may be less far than the position. It stays until
-- something is applied that is not replayed. `REGION filled` is where the channel stood when its filling was finished:
-- whoever subscribed before is told of a gap up to there. For ` whole` see whole.lua.
local FIRST_ARGUMENT, ARGUMENTS = 9, 7
local region = ARGV[1]
local held = redis.call('HMGET', KEYS[1], region, region .. ':fence')
local refused = refusal(KEYS[1], region, ARGV[2], held[2]) or moved(held[1], '')
if refused then
  return refused
end

local stands = redis.call('HMGET', KEYS[2], region .. ' filling', region, ' whole')
local last = stands[1] or stands[2]
local has_history = tonumber(ARGV[5]) > 0
if has_history and not last and not stands[3] then
  if ARGV[8] ~= '?' then
    last = ARGV[8]
  elseif begins_whole(KEYS[2], KEYS[3], ARGV[5]) then
    mark_whole(KEYS[2])
  elseif redis.call('EXISTS', KEYS[3]) == 1 then
    return { 'look' }
  end
end

-- A history of several epochs is gone through from its beginning.
for at = FIRST_ARGUMENT, #ARGV, ARGUMENTS do
  if not is_past(ARGV[at], ARGV[at + 1], last) then
    redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[5], '*', 'c', ARGV[4], 'o', region, 'e', ARGV[at],
      'n', ARGV[at + 1], 't', ARGV[at + 2], 'f', ARGV[at + 3], 'k', ARGV[at + 4], 'u', ARGV[at + 5],
      'd', ARGV[at + 6])
    last = ARGV[at] .. ':' .. ARGV[at + 1]
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[6])
if has_history then
  redis.call('HSET', KEYS[2], region .. ' filling', last or '')
end
if ARGV[3] ~= '' then
  leave_epoch(KEYS[2], region, string.match(stands[2] or '', '^(.*):'), string.match(ARGV[3], '^(.*):') or '')
  redis.call('HSET', KEYS[2], region, ARGV[3], region .. ' filled', ARGV[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return { 'ok' }
