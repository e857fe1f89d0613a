-- Before scripts that begin positions.
--
-- With ` whole`, pos has been there since before the channel's history. Then the history holds nothing of a region of
-- which pos holds nothing, and whoever fills it in need not look. Without it, a position may have been evicted: that
-- leaves the history behind, and others may have published since.

-- Whether a pos that is written now is there before the history, of which so many publications are kept.
local function begins_whole(pos, hist, kept)
  return tonumber(kept) > 0 and redis.call('EXISTS', pos, hist) == 0
end

local function mark_whole(pos)
  redis.call('HSET', pos, ' whole', 1)
end

