-- Before scripts that read what this region accepted from a stream.

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

-- Reads at most `count` entries after one id and up to another, and about `room` bytes; one entry fits always.
-- Gives {how many entries it looked at, the id of the last of them, 1 if none is left, those of `region`}.
local function read(key, region, after, until_id, count, room)
  local STEP = 32
  local entries, visited, last, exhausted = {}, 0, after, '0'
  while visited < count and exhausted == '0' and room > 0 do
    local wanted = math.min(STEP, count - visited)
    local part = redis.call('XRANGE', key, '(' .. last, until_id, 'COUNT', wanted)
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
      if not origin or origin == region then
        entries[#entries + 1] = entry
        room = room - #(field(entry[2], 'd', 17) or '') - 128
      end
    end
  end
  return { tostring(visited), last, exhausted, entries }
end

