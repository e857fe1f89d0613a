-- The head of every script: in which life is the partition?
--
-- KEYS[1] life (hash) · KEYS[2] log
-- ARGV[1] the run id of the server that the node believes to talk to · ARGV[2] a fresh random name
--
-- A life lasts as long as Redis provably lost nothing. Another run id (a restart, a failover), a missing hash (flushed,
-- evicted) or a log that is gone begins another one, whichever node comes first, as does a node that has seen more of the
-- log than there is, or a later life; so an offset of one epoch is never given twice. Epochs are `life.turn`. The turn
-- changes after half of the time for which an unused position is kept at least: a position that expired is never followed
-- by another of the same epoch.
--
-- Where Redis takes no writes for now (its memory is full, its replicas are away, it is one), the life that was known last
-- is told, and `refused` is what Redis says: whoever reads needs no write. `over` says that another life is due.
local TURN_MS = 302400000 -- three and a half days

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

local known = redis.call('HMGET', KEYS[1], 'run', 'life', 'turn', 'since', 'born', 'serial', 'log')
local life, turn, since = known[2] or '', tonumber(known[3] or nil), tonumber(known[4] or nil)
local born, serial, logged = known[5], tonumber(known[6] or nil) or 0, known[7] == '1'
local over = known[1] ~= ARGV[1] or not (known[2] and turn and since and born) or logged and not has_log
turn, born = turn or 0, born or '0-0'

-- Serials grow from life to life. `begun` is the epoch whose channels are marked as begun; '' while none has.
local function begin_life()
  local from, number = log_info()['last-generated-id'], math.max(serial + 1, now_ms)
  if try('HSET', KEYS[1], 'run', ARGV[1], 'life', ARGV[2], 'turn', 0, 'since', now_ms, 'born', from,
    'serial', string.format('%.0f', number), 'log', has_log and '1' or '', 'begun', '') then
    life, turn, born, serial, logged, over = ARGV[2], 0, from, number, has_log, false
  end
end

local function begin_turn()
  turn = turn + 1
  return try('HSET', KEYS[1], 'turn', turn, 'since', now_ms, 'begun', '')
end

if over then
  begin_life()
elseif now_ms - since > TURN_MS or now_ms < since then
  begin_turn()
end

-- Of positions that begin, in this turn or so many later.
local function fresh_epoch(later)
  return life == '' and 'unknown' or life .. '.' .. string.format('%.0f', turn + (later or 0))
end
