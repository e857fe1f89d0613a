-- Before scripts that move where a channel stands for another region.

-- Whether an epoch came after another, as far as their names tell: as `epoch.rs` has it.
local function is_later(epoch, than)
  local function read(name)
    local life, number = string.match(name, '^(%x+)%.e(%d+)$')
    if life and #life == 16 and #number <= 15 then
      return tonumber(string.sub(life, 1, 11), 16), life, tonumber(number)
    end
  end
  local serial, life, number = read(epoch)
  local than_serial, than_life, than_number = read(than)
  if not (serial and than_serial) then
    return false
  end
  return serial > than_serial or life == than_life and number > than_number
end

-- Whether a publication is one up to which a history goes, `epoch:offset`, or came before it, as far as is known.
local function is_past(epoch, offset, last)
  local last_epoch, last_offset = string.match(last or '', '^(.*):(%d+)$')
  return last_epoch and (epoch == last_epoch and tonumber(offset) <= tonumber(last_offset) or is_later(last_epoch, epoch))
end

-- A channel goes from one epoch to another. `REGION first` is the first epoch that it left: who has seen nothing of the
-- region stands there. The new epoch may have an earlier name: the other region lost its data, and its clock stands
-- behind. Then `REGION latest` is the latest epoch that the channel left: who stands there is not ahead of this region.
local function leave_epoch(pos, region, left, to)
  if left and left ~= to and redis.call('HEXISTS', pos, region .. ' first') == 0 then
    redis.call('HSET', pos, region .. ' first', left .. ':0')
  end
  if left and left ~= to and is_later(left, to) then
    local latest = redis.call('HGET', pos, region .. ' latest')
    if not latest or is_later(left, string.match(latest, '^(.*):')) then
      redis.call('HSET', pos, region .. ' latest', left .. ':0')
    end
  end
end
