-- Removes what a holder held whose lease has run out, at most so much at a time.
--
-- ARGV[4] the most sessions · [5] who asks: if its own lease has run out as well, the clock has jumped
-- [6] for how long a node holds without renewing · [7] and another region, in milliseconds
-- Answers the holder, or an empty text when no lease has run out; and how many were removed.
local CHUNK = 1000 -- so many arguments are taken at once

-- A clock that was set back does not make a lease longer: its holder may be gone. Where memory is full, this waits.
for index, longest in ipairs({ ARGV[6], ARGV[7] }) do
  local latest = whole(now_ms + longest)
  for _, longer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. latest, '+inf')) do
    if (string.sub(longer, 1, 1) == '@') == (index == 2) then
      redis.pcall('ZADD', KEYS[3], latest, longer)
    end
  end
end

local own = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[5]) or 0)
local holder = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now_ms), 'LIMIT', 0, 1)[1]
if not holder or own <= now_ms then
  return { '', 0 }
end
-- All is read before anything is written: while a cluster moves the slot, a key that is elsewhere ends the script.
local entries = redis.call('SRANDMEMBER', held_by(holder), ARGV[4])
local leaving = {}
for _, one in ipairs(entries) do
  local channel, session = string.match(one, '^(.*)\31(.*)$')
  local found = channel and held(channel, session)
  if found and found.holder == holder then
    leaving[#leaving + 1] = { channel, session, found.value }
  end
end
for _, one in ipairs(leaving) do
  redis.call('HDEL', room(one[1]), one[2])
  change('left', one[1], one[2], one[3])
end
for first = 1, #entries, CHUNK do
  redis.call('SREM', held_by(holder), unpack(entries, first, math.min(first + CHUNK - 1, #entries)))
end
if redis.call('EXISTS', held_by(holder)) == 0 then
  redis.call('ZREM', KEYS[3], holder)
end
say(true)
return { holder, #entries }
