-- Who is on a channel.
--
-- KEYS[3] the channel's room (hash) · ARGV[3] the most members listed
-- Answers {life, how many are there, {session, value, …}, the number of what was said last}; one may be listed twice.
local limit, count, listed = tonumber(ARGV[3]), redis.call('HLEN', KEYS[3]), nil
if count <= limit then
  listed = redis.call('HGETALL', KEYS[3])
else
  local cursor = '0'
  listed = {}
  repeat
    local part = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', limit)
    cursor = part[1]
    for _, word in ipairs(part[2]) do
      listed[#listed + 1] = word
    end
  until cursor == '0' or #listed >= 2 * limit
end
return { life, count, listed, redis.call('HGET', KEYS[1], 'said') or 0 }
