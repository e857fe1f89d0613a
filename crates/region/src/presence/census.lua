-- How many sessions are held by nodes of this region, and which nodes they are.
--
-- Holders whose names begin with `@` are other regions, and do not count; nor do nodes whose lease ran out long ago and
-- whom nobody sweeps.
-- ARGV[4] for how long after its lease a node still counts, in milliseconds
-- Answers {life, how many sessions, {holder, holder, …}, the number of what was said last}.
local total, holders = 0, {}
local alive = redis.call('ZRANGEBYSCORE', KEYS[3], whole(now_ms - tonumber(ARGV[4])), '+inf')
for _, holder in ipairs(alive) do
  if string.sub(holder, 1, 1) ~= '@' then
    total = total + redis.call('SCARD', held_by(holder))
    holders[#holders + 1] = holder
  end
end
return { life, total, holders, redis.call('HGET', KEYS[1], 'said') or 0 }
