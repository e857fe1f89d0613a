-- Renews a node's record, and tells the records of all others; those whose time is over are taken out.
--
-- KEYS[1] nodes (hash): id → `until_ms record`, by this server's clock
-- ARGV[1] id · [2] record · [3] lease_ms
-- Answers {id, record, the time that is left to it in ms, id, …}. While Redis takes no writes, nobody can renew, and
-- nobody's time is over.
local time = redis.call('TIME')
local now_ms, lease_ms = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])

local function put(id, record)
  return redis.pcall('HSET', KEYS[1], id, string.format('%.0f ', now_ms + lease_ms) .. record)
end

local refused = type(put(ARGV[1], ARGV[2])) == 'table'
local all, answer = redis.call('HGETALL', KEYS[1]), {}
for index = 1, #all, 2 do
  local id, until_ms, record = all[index], string.match(all[index + 1], '^(%d+) (.*)$')
  local left_ms = (tonumber(until_ms) or 0) - now_ms
  if refused and left_ms <= 0 then
    left_ms = lease_ms
  end
  if left_ms <= 0 then
    redis.call('HDEL', KEYS[1], id)
  elseif id ~= ARGV[1] then
    -- A clock that was set back does not make a record last longer.
    if left_ms > lease_ms then
      left_ms = lease_ms
      put(id, record)
    end
    answer[#answer + 1] = id
    answer[#answer + 1] = record
    answer[#answer + 1] = left_ms
  end
end
return answer
