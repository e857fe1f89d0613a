-- Tells in which life a partition is, and of which other regions more is to come that was published before.
--
-- KEYS[3] cursor (hash), if there are other regions
-- ARGV[3] the names of the other regions, separated by commas
--     [4] the life that the node knows, or ''
--     [5] the last id of the log that the node has seen in it. Where the log ends before it, the same server has gone
--         back in time, and another life begins
--     [6] the serial of that life. Where an earlier life is told, a server is back that others took over from
--         meanwhile: another life begins, too
--     [7] log_age_ms: what is older goes, as with each publication. A full Redis takes none, and has to get room
-- Answers {
--   life, its serial,
--   the log's last id when the life began, the log's last id, its oldest id or '',
--   how many entries it was ever given, how many it has,
--   the regions that this partition begins to know: those without cursor, and those of which a replay goes on,
--   of each region of whose earlier lives nothing is to come: `region life` }.
if has_log then
  local oldest_ms = math.max(0, now_ms - tonumber(ARGV[7]))
  redis.pcall('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f', oldest_ms), 'LIMIT', 100000)
end
local log = log_info()
local seen = tonumber(ARGV[6])
if life == ARGV[4] and is_before(log['last-generated-id'], ARGV[5]) or serial < seen then
  serial = math.max(serial, seen)
  begin_life()
end
-- As read.lua tells it: of this region itself while the life that is due cannot begin.
local coming, lives = { over and '' or nil }, {}
if KEYS[3] then
  for region in string.gmatch(ARGV[3], '[^,]+') do
    local held = redis.call('HMGET', KEYS[3], region, region .. ':replay')
    if not held[1] or held[2] then
      coming[#coming + 1] = region
    end
    local began_in = held[1] and reached_life(held[1])
    if began_in then
      lives[#lives + 1] = region .. ' ' .. began_in
    end
  end
end
return { life, string.format('%.0f', serial), born, log['last-generated-id'], log.oldest, log['entries-added'], log.length, coming,
  lives }
