-- Sessions are held by a holder no longer; who went on to another one stays.
--
-- ARGV[4] holder · then for each: channel, session, stay (0: whichever it is), claim (of the transport, or empty)
local holder = ARGV[4]
for index = 5, #ARGV, 4 do
  local channel, session, stay = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
  local ends = { claim = fields(ARGV[index + 3]), stay = stay, is_own = true }
  local found = held(channel, session)
  if not found or found.holder ~= holder then
    redis.call('SREM', held_by(holder), entry(channel, session))
  elseif stay == 0 and not ends.claim or not is_later(found, ends) then
    redis.call('HDEL', room(channel), session)
    redis.call('SREM', held_by(holder), entry(channel, session))
    change('left', channel, session, found.value)
  end
end
say()
return life
