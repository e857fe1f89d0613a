-- Before scripts that have to know whether a channel without a position ever had one, behind `life.lua`.
--
-- Four bits of a bitmap stand for each channel that has begun in the present epoch, and one more for the bitmap: where that is
-- not set, the bitmap was lost.
local PLACES = 262144

local function places(channel)
  local digest, of = redis.sha1hex(channel), {}
  for first = 1, 16, 5 do
    of[#of + 1] = tonumber(string.sub(digest, first, first + 4), 16) % PLACES
  end
  return of
end

-- Whether the channel, or for all that is known another one, has begun in this epoch.
local function has_begun(bitmap, channel)
  local begun = redis.call('HGET', KEYS[1], 'begun')
  if begun == '' then
    return false
  elseif begun ~= fresh_epoch() or redis.call('GETBIT', bitmap, PLACES) == 0 then
    -- Or it began under the version before this one, which marks nothing.
    return true
  end
  for _, place in ipairs(places(channel)) do
    if redis.call('GETBIT', bitmap, place) == 0 then
      return false
    end
  end
  return true
end

local function mark_begun(bitmap, channel)
  if redis.call('HGET', KEYS[1], 'begun') ~= fresh_epoch() then
    redis.call('DEL', bitmap)
    redis.call('SETBIT', bitmap, PLACES, 1)
    redis.call('HSET', KEYS[1], 'begun', fresh_epoch())
  end
  for _, place in ipairs(places(channel)) do
    redis.call('SETBIT', bitmap, place, 1)
  end
end

