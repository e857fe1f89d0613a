-- Gives a session to a transport, and tells the node of the transport that had it.
-- KEYS: the session's holder. ARGV: node ('' for one of another region), the transport's turn among those of the
-- session, its number on the node, how long it has had the session in µs (0: since now), lifetime in ms, the session,
-- the prefix of inboxes.
-- Answers 1, or 0 when a newer transport has the session: one of a later turn, or one of the same that came later.
local node, turn, number, age = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local since = time[1] * 1000000 + time[2] - age
local holder = redis.call('GET', KEYS[1])
if holder then
  local their_turn, their_since, their_number, their_node = string.match(holder, '^(%d+) (%d+) (%d+) (.*)$')
  if their_turn and not (their_node == node and their_number == number) then
    their_turn, their_since = tonumber(their_turn), tonumber(their_since)
    if their_turn > turn then
      return 0
    elseif age == 0 then
      since = math.max(since, their_since + 1)
    elseif their_turn == turn and their_since >= since then
      return 0
    end
    if their_node ~= '' and their_node ~= node then
      redis.call('PUBLISH', ARGV[7] .. their_node, 'replaced ' .. their_number .. ' ' .. ARGV[6])
    end
  end
end
redis.call('SET', KEYS[1], string.format('%.0f %.0f %s %s', turn, since, number, node), 'PX', ARGV[5])
return 1
