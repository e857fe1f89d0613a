-- Reads what this region accepted from a part of a partition's log, for another region.
--
-- ARGV[3] this region's name
--     [4] after this id
--     [5] up to this id, or `+`
--     [6] the most entries to look at
--     [7] the most bytes to answer; one entry fits always
-- Answers {
--   life, the log's last id when it began,
--   how many publications this region accepted, the id of the last of them or '',
--   the time in ms,
--   the log's last id, its oldest id or '', 1 if entries were trimmed,
--   how many entries it looked at, the id of the last of them, 1 if none is left in this part,
--   entries }.
local log = log_info()
local trimmed = '0'
if log['entries-added'] > log.length then
  trimmed = '1'
end

local part = read(KEYS[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]))
local out = redis.call('HMGET', KEYS[1], 'own', 'out')
return { life, born, out[1] or '0', out[2] or '', string.format('%.0f', now_ms), log['last-generated-id'],
  log.oldest, trimmed, part[1], part[2], part[3], part[4] }
