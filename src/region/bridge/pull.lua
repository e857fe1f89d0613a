-- Reads what this region accepted from a part of a partition's log, for another region.
--
-- ARGV[3] this region's name · [4] after this id · [5] up to this id, or `+` · [6] the most entries to look at
-- ARGV[7] the most bytes to answer; one entry fits always
-- Answers {life, the log's last id when it began, how many publications this region accepted, the id of the last of
-- them or '', the time in ms, the log's last id, its oldest id or '', 1 if entries were trimmed,
-- how many entries it looked at, the id of the last of them, 1 if none is left in this part, entries}.
local STEP = 32

local newest, oldest, trimmed = '0-0', '', '0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  local of = {}
  for index = 1, #info, 2 do
    of[info[index]] = info[index + 1]
  end
  newest = of['last-generated-id']
  if of['first-entry'] then
    oldest = of['first-entry'][1]
  end
  if (of['entries-added'] or 0) > of['length'] then
    trimmed = '1'
  end
end

-- Fields stand in the order in which scripts write them; what a later version writes is found all the same.
local function field(fields, name, place)
  if fields[place] == name then
    return fields[place + 1]
  end
  for index = 1, #fields, 2 do
    if fields[index] == name then
      return fields[index + 1]
    end
  end
end

local count, room = tonumber(ARGV[6]), tonumber(ARGV[7])
local entries, visited, last, exhausted = {}, 0, ARGV[4], '0'
while visited < count and exhausted == '0' and room > 0 do
  local wanted = math.min(STEP, count - visited)
  local part = redis.call('XRANGE', KEYS[2], '(' .. last, ARGV[5], 'COUNT', wanted)
  if #part < wanted then
    exhausted = '1'
  end
  for _, entry in ipairs(part) do
    if room <= 0 then
      exhausted = '0'
      break
    end
    visited, last = visited + 1, entry[1]
    local origin = field(entry[2], 'o', 3)
    -- One without origin is for the reader to wonder at.
    if not origin or origin == ARGV[3] then
      entries[#entries + 1] = entry
      room = room - #(field(entry[2], 'd', 17) or '') - 128
    end
  end
end

local out = redis.call('HMGET', KEYS[1], 'own', 'out')
return { life, born, out[1] or '0', out[2] or '', string.format('%.0f', now_ms), newest, oldest, trimmed,
  tostring(visited), last, exhausted, entries }
