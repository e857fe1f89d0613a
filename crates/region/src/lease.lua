-- Takes, renews or gives back a lease, by Redis' own clock.
--
-- KEYS[1] lease (hash holder, token, until_ms)
-- ARGV[1] `take`, `renew` or `release` · [2] who asks · [3] duration_ms · [4] the token is to be at least this
-- Answers {token, 0} to who holds it now; else {0, the time that is left to the holder, in ms}; or {0, -1} where nobody
-- can take it, as Redis takes no writes for now: its memory is full, its replicas are away, or its disk is full.
--
-- The token grows by one at each change of holder, and never falls while the hash is there. Where the hash is not
-- there, nobody holds the lease, even if somebody took it in time: Redis lost it, and more with it, or nobody has
-- wanted it for days.
local FORGOTTEN_AFTER_MS = 604800000

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', KEYS[1], 'holder', 'token', 'until_ms')
local holder, token, until_ms = known[1], tonumber(known[2] or nil) or 0, tonumber(known[3] or nil) or 0
local duration_ms = tonumber(ARGV[3])

-- Writes; what Redis says where it does not let it.
local function put(...)
  local answer = redis.pcall('HSET', KEYS[1], ...)
  return type(answer) == 'table' and answer.err
end

-- A clock that was set back does not make a lease longer.
if until_ms > now_ms + duration_ms then
  until_ms = now_ms + duration_ms
  put('until_ms', string.format('%.0f', until_ms))
end

if ARGV[1] == 'release' then
  if holder == ARGV[2] then
    put('holder', '', 'until_ms', 0)
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
local refusal = put('holder', ARGV[2], 'token', token_text, 'until_ms', string.format('%.0f', now_ms + duration_ms))
if refusal then
  local is_for_now = string.find(refusal, '^OOM') or string.find(refusal, '^MISCONF') or string.find(refusal, '^NOREPLICAS')
  return is_for_now and { '0', '-1' } or redis.error_reply(refusal)
end
-- Nodes take leases by names that may never come back.
redis.call('PEXPIRE', KEYS[1], FORGOTTEN_AFTER_MS)
return { token_text, '0' }
