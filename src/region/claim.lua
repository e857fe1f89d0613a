-- Gives a session to a transport, and tells the node of the transport that had it.
-- KEYS: the session's holder. ARGV: node ('' for one of another region), number of the transport, how long it has had
-- the session in µs (0: since now), lifetime in ms, the session, the prefix of inboxes.
-- Answers 1, or 0 when a newer transport has the session.
local node, number, age = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local since = time[1] * 1000000 + time[2] - age
local holder = redis.call('GET', KEYS[1])
if holder then
  local their_since, their_number, their_node = string.match(holder, '^(%d+) (%d+) (.*)$')
  if their_since and not (their_node == node and their_number == number) then
    if age == 0 then
      since = math.max(since, their_since + 1)
    elseif tonumber(their_since) >= since then
      return 0
    end
    if their_node ~= '' and their_node ~= node then
      redis.call('PUBLISH', ARGV[6] .. their_node, 'replaced ' .. their_number .. ' ' .. ARGV[5])
    end
  end
end
redis.call('SET', KEYS[1], string.format('%.0f %s %s', since, number, node), 'PX', ARGV[4])
return 1
