-- Before scripts of a leader: only the latest one changes anything.

-- The refusal when somebody with a higher token was here; else shuts out all who have a lower one. `stored` is the
-- highest token so far, as it stands in the cursor.
local function refusal(cursor_key, region, token, stored)
  local fence = tonumber(stored or nil) or 0
  if tonumber(token) < fence then
    return { 'fenced', string.format('%.0f', fence) }
  end
  if tonumber(token) > fence then
    redis.call('HSET', cursor_key, region .. ':fence', token)
  end
end

-- The refusal to a leader who takes the cursor to stand elsewhere. `stored` is where it stands.
local function moved(stored, expected)
  local cursor = stored or ''
  if cursor ~= expected then
    return { 'moved', cursor }
  end
end

