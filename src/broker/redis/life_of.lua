-- Tells in which life a partition is, and of which other regions more is to come that was published before.
--
-- KEYS[3] cursor (hash), if there are other regions · ARGV[3] their names, separated by commas
-- Answers {life, the log's last id when the life began, the log's last id, how many entries it was ever given,
-- the regions that this partition begins to know: those without cursor, and those of which a replay goes on}.
local log = log_info()
local coming = {}
if KEYS[3] then
  for region in string.gmatch(ARGV[3], '[^,]+') do
    local held = redis.call('HMGET', KEYS[3], region, region .. ':replay')
    if not held[1] or held[2] then
      coming[#coming + 1] = region
    end
  end
end
return { life, born, log['last-generated-id'], log['entries-added'], coming }
