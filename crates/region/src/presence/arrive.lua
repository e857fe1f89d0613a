-- Sessions are held by a holder: they came, or it says so again.
--
-- ARGV[4] holder · [5] lease_ms · [6] how those are announced who were not there: `joined` or `back`
-- then for each: channel, session, stay, since_ms, details. A stay of 0 is an arrival that was not answered, always
-- announced as joined. Whoever holds a session by a later transport keeps it, in whatever order this is read.
-- Answers stay and since_ms of each; a stay of 0 when another holds it by a later transport.
local holder, answers = ARGV[4], {}
redis.call('ZADD', KEYS[3], 'NX', whole(now_ms + ARGV[5]), holder)
for index = 7, #ARGV, 5 do
  local channel, session, stay = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
  local since, details = ARGV[index + 3], ARGV[index + 4]
  local arrives, found = stay == 0, held(channel, session)
  if arrives then
    stay = now_ms
  end
  if found and found.since then
    since = found.since
  end
  local is_own = found and found.holder == holder
  if found and is_later(found, { claim = claim_of(details), stay = stay, arrives = arrives, is_own = is_own }) then
    stay = is_own and found.stay or 0
  else
    if found then
      -- It grows whenever a session passes to another holder or transport.
      stay = math.max(stay, found.stay + ((arrives or not is_own) and 1 or 0))
    end
    local value = holder .. ' ' .. whole(stay) .. ' ' .. since .. ' ' .. details
    -- First what finds it again, should a cluster move the slot and the second fail.
    redis.call('SADD', held_by(holder), entry(channel, session))
    redis.call('HSET', room(channel), session, value)
    if not found then
      change(arrives and 'joined' or ARGV[6], channel, session, value)
    elseif not is_own then
      redis.call('SREM', held_by(found.holder), entry(channel, session))
      change('taken', channel, session, value)
    elseif found.stay ~= stay then
      -- Whoever takes it over next needs a later one.
      change('taken', channel, session, value)
    end
  end
  answers[#answers + 1] = whole(stay)
  answers[#answers + 1] = since
end
say()
return answers
