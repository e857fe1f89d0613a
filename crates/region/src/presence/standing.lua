-- Which of some sessions are held by nodes of this region, of those that count in census.lua.
--
-- ARGV[4] for how long after its lease a node still counts, in milliseconds · then for each: channel, session
-- Answers 1 or 0 for each.
local since_ms, answers = now_ms - tonumber(ARGV[4]), {}
for index = 5, #ARGV, 2 do
  local found = held(ARGV[index], ARGV[index + 1])
  local until_ms = found and string.sub(found.holder, 1, 1) ~= '@' and redis.call('ZSCORE', KEYS[3], found.holder)
  answers[#answers + 1] = tonumber(until_ms or 0) >= since_ms and 1 or 0
end
return answers
