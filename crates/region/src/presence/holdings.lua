-- A step through what a holder holds.
--
-- ARGV[4] holder · [5] cursor, 0 at first · [6] about how many
-- Answers {life, cursor, {channel, session, value, …}}; at the end the cursor is 0. One may be listed twice.
local step = redis.call('SSCAN', held_by(ARGV[4]), ARGV[5], 'COUNT', ARGV[6])
local listed = {}
for _, one in ipairs(step[2]) do
  local channel, session = string.match(one, '^(.*)\31(.*)$')
  local found = channel and held(channel, session)
  if found and found.holder == ARGV[4] then
    listed[#listed + 1] = channel
    listed[#listed + 1] = session
    listed[#listed + 1] = found.value
  end
end
return { life, step[1], listed }
