-- Sessions are held by a holder: they came, or it says so again.
--
-- ARGV[4] holder · [5] lease_ms · [6] how those are announced who were not there: `joined` or `back`
-- then for each: channel, session, stay, since_ms, details. A stay of 0 is an arrival: it takes over from any other
-- holder, and is always announced as joined. Another stay is one that was answered before: a later one stands.
-- Answers stay and since_ms of each; a stay of 0 when another holds it by a later one.
local holder, answers = ARGV[4], {}
redis.call('ZADD', KEYS[3], 'NX', whole(now_ms + ARGV[5]), holder)
for index = 7, #ARGV, 5 do
  local channel, session, stay = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
  local since, details = ARGV[index + 3], ARGV[index + 4]
  local arrives, found = stay == 0, held(channel, session)
  if found and found.since then
    since = found.since
  end
  if found and found.holder ~= holder and not arrives and found.stay >= stay then
    stay = 0
  else
    if arrives then
      stay = math.max(now_ms, found and found.stay + 1 or 0)
    elseif found then
      stay = math.max(stay, found.stay)
    end
    local value = holder .. ' ' .. whole(stay) .. ' ' .. since .. ' ' .. details
    -- First what finds it again, should a cluster move the slot and the second fail.
    redis.call('SADD', held_by(holder), entry(channel, session))
    redis.call('HSET', room(channel), session, value)
    if not found then
      change(arrives and 'joined' or ARGV[6], channel, session, value)
    elseif found.holder ~= holder then
      redis.call('SREM', held_by(found.holder), entry(channel, session))
      change('taken', channel, session, value)
    end
  end
  answers[#answers + 1] = whole(stay)
  answers[#answers + 1] = since
end
say()
return answers
