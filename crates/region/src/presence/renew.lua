-- Renews a holder's lease.
--
-- KEYS[3] leases · KEYS[4] what it holds · ARGV[3] holder · [4] lease_ms
-- Answers {life, how many sessions it holds, 1 if the lease had run out or was not there, the number of what was said
-- last}.
local until_ms = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[3]) or 0)
redis.call('ZADD', KEYS[3], string.format('%.0f', now_ms + ARGV[4]), ARGV[3])
local lapsed, said = until_ms <= now_ms and 1 or 0, redis.call('HGET', KEYS[1], 'said') or 0
return { life, redis.call('SCARD', KEYS[4]), lapsed, said }
