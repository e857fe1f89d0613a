-- Removes what a holder held whose lease has run out, at most so much at a time.
--
-- ARGV[4] the most sessions
-- Answers the holder, or an empty text when no lease has run out; and how many were removed.
local holder = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now_ms), 'LIMIT', 0, 1)[1]
if not holder then
  return { '', 0 }
end
local entries = redis.call('SPOP', held_by(holder), ARGV[4])
for _, one in ipairs(entries) do
  local channel, session = string.match(one, '^(.*)\31(.*)$')
  local found = channel and held(channel, session)
  if found and found.holder == holder then
    redis.call('HDEL', room(channel), session)
    change('left', channel, session, found.value)
  end
end
if redis.call('EXISTS', held_by(holder)) == 0 then
  redis.call('ZREM', KEYS[3], holder)
end
say(true)
return { holder, #entries }
