-- Takes a session from a transport that has ended, unless another one has it by now.
-- KEYS: the session's holder. ARGV: node, number of the transport.
local holder = redis.call('GET', KEYS[1])
if holder then
  local number, node = string.match(holder, '^%d+ %d+ (%d+) (.*)$')
  if node == ARGV[1] and number == ARGV[2] then
    return redis.call('DEL', KEYS[1])
  end
end
return 0
