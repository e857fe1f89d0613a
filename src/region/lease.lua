-- Takes, renews or gives back a lease, by Redis' own clock.
--
-- KEYS[1] lease (hash holder, token, until_ms)
-- ARGV[1] `take`, `renew` or `release` · [2] who asks · [3] duration_ms · [4] the token is to be at least this
-- Answers {token, 0} to who holds it now, else {0, the time that is left to the holder, in ms}.
--
-- The token grows by one at each change of holder, and never falls while the hash is there: it does not expire. Where it
-- is not there, Redis lost it, and more with it: nobody holds the lease, be it that it was taken in time.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'holder', 'token', 'until_ms')
local holder, token, until_ms = known[1], tonumber(known[2] or nil) or 0, tonumber(known[3] or nil) or 0
local duration_ms = tonumber(ARGV[3])
-- A clock that was set back does not make a lease longer.
if until_ms > now_ms + duration_ms then
  until_ms = now_ms + duration_ms
  redis.call('HSET', KEYS[1], 'until_ms', string.format('%.0f', until_ms))
end

if ARGV[1] == 'release' then
  if holder == ARGV[2] then
    redis.call('HSET', KEYS[1], 'holder', '', 'until_ms', 0)
  end
  return { '0', '0' }
end
local is_another = holder ~= ARGV[2]
if is_another and ARGV[1] == 'renew' then
  return { '0', '0' }
end
if holder and holder ~= '' and is_another and until_ms > now_ms then
  return { '0', string.format('%.0f', until_ms - now_ms) }
end
if is_another then
  token = token + 1
end
token = math.max(token, tonumber(ARGV[4]))
local token_text = string.format('%.0f', token)
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'token', token_text,
  'until_ms', string.format('%.0f', now_ms + duration_ms))
return { token_text, '0' }
