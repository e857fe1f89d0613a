-- Gives a session to a transport unless a newer one has it, and tells the node of the transport that had it.
--
-- KEYS[1] the session's holder: `attempt turn since_ms number node`, the node '' for one of another region
-- ARGV[1] attempt · [2] turn · [3] since_ms · [4] number. Of two claims, the first of these that differs decides: the
--         greater one is newer, as `claim.rs` has it
--     [5] node
--     [6] lifetime in ms
--     [7] the session
--     [8] what the names of inboxes begin with
--     [9] the partition
--    [10] what the names of the counts begin with, of what is said to a node
-- Answers 1, or 0 when a newer transport has the session.

-- What is said to a node is numbered, so that it knows what it missed. It keeps the count itself: without one, nobody
-- is there, or whoever is makes up for all by the number 0.
local function tell(node, number)
  local told = ARGV[10] .. node
  local said = redis.call('EXISTS', told) == 1 and redis.call('HINCRBY', told, 'said', 1) or 0
  local word = table.concat({ 'replaced', ARGV[9], said, number, ARGV[7] }, ' ')
  redis.call('PUBLISH', ARGV[8] .. node, word)
end

local holder = redis.call('GET', KEYS[1])
local theirs = holder and { string.match(holder, '^(%d+) (%d+) (%d+) (%d+) (%S*)') } or {}
for field = 1, theirs[5] and 4 or 0 do
  local own, their = tonumber(ARGV[field]), tonumber(theirs[field])
  if their > own then
    return 0
  elseif own > their then
    -- Also to a node of this name: two may have been given one id.
    if theirs[5] ~= '' then
      tell(theirs[5], theirs[4])
    end
    break
  end
end
redis.call('SET', KEYS[1], table.concat(ARGV, ' ', 1, 5), 'PX', ARGV[6])
return 1
