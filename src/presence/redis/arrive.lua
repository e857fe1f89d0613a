-- Sessions are held by a holder: they came, or it says so again.
--
-- ARGV[4] holder · [5] lease_ms · [6] how those are announced who were not there: `joined` or `back`
-- then for each: channel, session, stay, arrived_ms, since_ms, details. A stay of 0 is an arrival that was not answered,
-- always announced as joined; arrived_ms tells when it was, by this server's clock, 0 if that is not known. As it happens
-- it takes over from any other holder. What is said again, or read here late, does not from one that holds the session by
-- a later stay.
-- Answers stay and since_ms of each; a stay of 0 when another holds it by a later one.
local AT_ONCE_MS = 1000 -- an arrival that is read within this time is one that happens now

local holder, answers = ARGV[4], {}
redis.call('ZADD', KEYS[3], 'NX', whole(now_ms + ARGV[5]), holder)
for index = 7, #ARGV, 6 do
  local channel, session, stay = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
  local arrived_ms, since, details = tonumber(ARGV[index + 3]), ARGV[index + 4], ARGV[index + 5]
  local arrives, found = stay == 0, held(channel, session)
  local arrives_now = arrives and (arrived_ms == 0 or ARGV[6] == 'joined' and now_ms - arrived_ms < AT_ONCE_MS)
  if arrives then
    stay = arrives_now and now_ms or arrived_ms
  end
  if found and found.since then
    since = found.since
  end
  if found and found.holder ~= holder and not arrives_now and found.stay >= stay then
    stay = 0
  else
    if found and arrives_now then
      stay = math.max(stay, found.stay + 1)
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
