-- The head of every script: in which life is the partition?
--
-- KEYS[1] life (hash) · KEYS[2] log
-- ARGV[1] the run id of the server that the node believes to talk to
--     [2] five random hexadecimal digits, and behind them, in decimal, the highest serial of a life in which the node
--         saw this Redis
--
-- A life lasts as long as Redis provably lost nothing. Another one begins, whichever node comes first, with:
--   another run id: a restart, a failover
--   another history of the data in the same run: the server was a replica meanwhile
--   a missing hash (flushed, evicted), or a log that is gone
--   a node that has seen more of the log than there is, or a later life
-- So an offset of one epoch is never given twice. Epochs are `life.eNUMBER`. `epochs` counts those of the life, and
-- `begun` is the one in which channels begin. (Nodes of the version before have `life.turn`, and want `turn` and
-- `since`.)
--
-- Where Redis takes no writes for now (its memory is full, its replicas are away, it is one), the life that was known
-- last is told, and `refused` is what Redis says: whoever reads needs no write. `over` says that another life is due.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local has_log = redis.call('EXISTS', KEYS[2]) == 1
local refused

-- Writes, or keeps the refusal.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    refused = answer
  end
  return not refused
end

-- What XINFO tells of the log, by name, and its oldest id; of one that is not there, that it holds nothing.
local function log_info()
  local of = { ['last-generated-id'] = '0-0', ['entries-added'] = 0, length = 0, oldest = '' }
  if has_log then
    local info = redis.call('XINFO', 'STREAM', KEYS[2])
    for index = 1, #info, 2 do
      of[info[index]] = info[index + 1]
    end
    if of['first-entry'] then
      of.oldest = of['first-entry'][1]
    end
  end
  return of
end

local known = redis.call('HMGET', KEYS[1], 'run', 'life', 'born', 'serial', 'log', 'replid', 'out', 'epochs', 'begun')
local life, born, serial = known[2] or '', known[3] or '0-0', tonumber(known[4] or nil) or 0
local logged, epochs, begun = known[5] == '1', tonumber(known[8] or nil) or 0, known[9] or ''
local over = known[1] ~= ARGV[1] or not (known[2] and known[3]) or logged and not has_log

-- Of what INFO tells; '' where it tells none.
local function replication_id(told)
  local _, before = string.find(told, 'master_replid:', 1, true)
  return before and string.match(told, '^%x+', before + 1) or ''
end

-- Whether the data may be another server's by now, as those of a replica are, or of a master that was one meanwhile.
-- The id of their history tells. When all replicas have been gone for long, a master takes another id, and names none
-- that it left.
local function is_set_back(known_id)
  local told = redis.call('INFO', 'replication')
  local id = replication_id(told)
  if id == known_id then
    return false
  elseif not known_id or string.find(told, 'role:master', 1, true) and string.find(told, 'master_replid2:0+%s') then
    -- Or a node of the version before this one began the life.
    try('HSET', KEYS[1], 'replid', id)
    return false
  end
  return true
end

-- Asking costs a tenth of a publication, so right after one nobody asks. To take over another server's data and to be a
-- master again takes longer: 10 ms at best, on one machine and without any data.
local ASKED_AFTER_MS = 2
local function was_just_published(last)
  local ms = tonumber(string.match(last or '', '^%d+'))
  return ms and ms <= now_ms and now_ms < ms + ASKED_AFTER_MS
end

over = over or not (known[6] and was_just_published(known[7])) and is_set_back(known[6])

-- Serials grow from life to life, and so do names, though all data are lost and the clock stands behind: see
-- `epoch.rs`.
local function begin_life()
  local digits, seen = string.match(ARGV[2], '^(%x%x%x%x%x)(%d+)$')
  local from, number = log_info()['last-generated-id'], math.max(serial + 1, tonumber(seen) + 1, now_ms)
  local name = string.format('%011x', number) .. digits
  if try('HSET', KEYS[1], 'run', ARGV[1], 'life', name, 'turn', 0, 'since', now_ms, 'born', from,
    'serial', string.format('%.0f', number), 'log', has_log and '1' or '', 'epochs', 0, 'begun', '',
    'replid', replication_id(redis.call('INFO', 'replication'))) then
    life, born, serial, logged, over, epochs, begun = name, from, number, has_log, false, 0, ''
  end
end

if over then
  begin_life()
end

local function is_of(some_life, epoch)
  return some_life ~= '' and string.sub(epoch, 1, #some_life + 1) == some_life .. '.'
end

local function is_of_life(epoch)
  return is_of(life, epoch)
end

-- The one that comes after so many.
local function epoch_after(count)
  return life == '' and 'unknown' or life .. '.e' .. string.format('%.0f', count + 1)
end
