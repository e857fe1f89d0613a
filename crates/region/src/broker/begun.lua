-- Before scripts that begin channels or tell where they begin, behind `life.lua`.
--
-- Four bits of a bitmap stand for each channel that has begun in the epoch `begun`. One more stands for the bitmap:
-- where it is not set, the bitmap was lost. A channel that has begun may have no position any more: it expired, was
-- evicted or deleted. Such a channel goes on in an epoch of its own: no offset is given twice, and what others were
-- told stays true.
local PLACES = 262144
-- With more channels than that, one in some hundred is taken for another: then channels begin in another epoch.
local MOST = 20000

-- The bits that stand for a channel.
local function places_of(channel)
  local digest, of = redis.sha1hex(channel), {}
  for first = 1, 16, 5 do
    of[#of + 1] = tonumber(string.sub(digest, first, first + 4), 16) % PLACES
  end
  return of
end

-- Whether it is known which channels have begun.
local function is_marked(bitmap)
  return is_of_life(begun) and redis.call('GETBIT', bitmap, PLACES) == 1
end

-- In which channels begin, unless it is not known any more which have.
local function fresh_epoch()
  return is_of_life(begun) and begun or epoch_after(epochs)
end

-- The epoch in which a channel without position goes on, and whether that is one of its own.
local function next_epoch(bitmap, places)
  if not is_marked(bitmap) then
    return epoch_after(epochs), false
  end
  for _, place in ipairs(places) do
    if redis.call('GETBIT', bitmap, place) == 0 then
      return begun, false
    end
  end
  return epoch_after(epochs), true
end

-- A channel goes on in another life than that in which this region stands there: see latest.lua.
local function leave_life(pos, region, stands)
  local left = string.match(stands or '', '^(.*):[1-9]%d*$')
  if left and not is_of_life(left) and redis.call('HEXISTS', pos, region .. ' first') == 0 then
    redis.call('HSET', pos, region .. ' first', left .. ':0')
  end
end

-- Nobody else begins in that epoch.
local function take_epoch()
  epochs = epochs + 1
  return try('HSET', KEYS[1], 'epochs', epochs)
end

local function mark_begun(bitmap, places, epoch)
  if epoch ~= begun then
    redis.call('DEL', bitmap)
    redis.call('SETBIT', bitmap, PLACES, 1)
    redis.call('HSET', KEYS[1], 'epochs', epochs + 1, 'begun', epoch, 'marked', 0)
  end
  for _, place in ipairs(places) do
    redis.call('SETBIT', bitmap, place, 1)
  end
  if redis.call('HINCRBY', KEYS[1], 'marked', 1) >= MOST then
    redis.call('HSET', KEYS[1], 'begun', '')
  end
end

