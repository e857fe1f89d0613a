-- Remembers what another region published on a channel before the link began, without delivering it.
--
-- KEYS[1] cursor (hash) · KEYS[2] pos (hash) · KEYS[3] hist (stream)
-- ARGV[1] the other region · [2] the leader's token · [3] where the channel stands there, or '' when more follows
-- ARGV[4] channel · [5] history (publications) · [6] history_age_ms · [7] position_age_ms · then for each
-- publication, oldest first: epoch · offset · time · flags · key · user · payload
-- Answers {`ok`}, {`moved`, where the cursor is} when the link has begun, or {`fenced`, the token to be exceeded}.
--
-- In pos, `REGION filling` is how far an unfinished filling got, and `REGION filled` where the channel stood when it
-- was finished: whoever subscribed before is told of a gap up to there.
local region = ARGV[1]
local held = redis.call('HMGET', KEYS[1], region, region .. ':fence')
local refused = refusal(KEYS[1], region, ARGV[2], held[2]) or moved(held[1], '')
if refused then
  return refused
end

-- The newest of the region that is remembered here, as it would stand in pos.
local function newest_of_history()
  local STEP, to = 32, '+'
  repeat
    local part = redis.call('XREVRANGE', KEYS[3], to, '-', 'COUNT', STEP)
    for _, entry in ipairs(part) do
      if field(entry[2], 'o', 3) == region then
        return field(entry[2], 'e', 5) .. ':' .. field(entry[2], 'n', 7)
      end
      to = '(' .. entry[1]
    end
  until #part < STEP
end

local stands = redis.call('HMGET', KEYS[2], region .. ' filling', region)
local last = stands[1] or stands[2]
if not last and redis.call('EXISTS', KEYS[2]) == 0 then
  -- A position that was evicted leaves its history.
  last = newest_of_history()
end
local epoch, offset = string.match(last or '', '^(.*):(%d+)$')
offset = tonumber(offset or nil)

-- Whether a publication is here, or is from before what is: a history of several epochs is gone through from its beginning.
local function is_past(of, at)
  return of == epoch and at <= offset or epoch and is_later(epoch, of)
end

for at = 8, #ARGV, 7 do
  if not is_past(ARGV[at], tonumber(ARGV[at + 1])) then
    redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[5], '*', 'c', ARGV[4], 'o', region, 'e', ARGV[at],
      'n', ARGV[at + 1], 't', ARGV[at + 2], 'f', ARGV[at + 3], 'k', ARGV[at + 4], 'u', ARGV[at + 5],
      'd', ARGV[at + 6])
    epoch, offset = ARGV[at], tonumber(ARGV[at + 1])
    redis.call('HSET', KEYS[2], region .. ' filling', epoch .. ':' .. ARGV[at + 1])
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[6])
if ARGV[3] ~= '' then
  leave_epoch(KEYS[2], region, string.match(stands[2] or '', '^(.*):'), string.match(ARGV[3], '^(.*):') or '')
  redis.call('HDEL', KEYS[2], region .. ' filling')
  redis.call('HSET', KEYS[2], region, ARGV[3], region .. ' filled', ARGV[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return { 'ok' }
