-- Reads where a channel stands and a part of its history, for another region.
--
-- KEYS[1] pos (hash) · KEYS[2] hist (stream)
-- ARGV[1] this region's name · [2] after this id · [3] up to this id, or `+` · [4] the most entries to look at
--     [5] the most bytes to answer; one entry fits always
-- Answers {
--   position or '', the id in the log of the publication that stands there or '',
--   the id of the last entry that it looked at, 1 if none is left, entries }.
local part = read(KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
local stands = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[1] .. ' at')
return { stands[1] or '', stands[2] or '', part[2], part[3], part[4] }
