-- Takes a session from a transport that has ended, unless another one has it by now.
--
-- KEYS[1] the session's holder, as `claim.lua` writes it · ARGV[1] node · [2] number of the transport
local holder = redis.call('GET', KEYS[1])
local number, node = string.match(holder or '', '^%d+ %d+ %d+ (%d+) (%S*)')
if node == ARGV[1] and number == ARGV[2] then
  return redis.call('DEL', KEYS[1])
end
return 0
