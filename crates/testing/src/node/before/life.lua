-- The head of every script: in which life is the partition?
--
-- KEYS[1] life (hash) · KEYS[2] log
-- ARGV[1] the run id of the server that the node believes to talk to · ARGV[2] a fresh random name
--
-- A life lasts as long as Redis provably lost nothing. Another run id (a restart, a failover) or a missing
-- hash (flushed, evicted) begins another one, whichever node comes first, as does a node that has seen more of the log
-- than there is; so an offset of one epoch is never given twice. Epochs are `life.turn`. The turn changes after half of
-- the time for which an unused position is kept at least: a position that expired is never followed by another of the
-- same epoch.
local TURN_MS = 302400000 -- three and a half days

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- What XINFO tells of the log, by name, and its oldest id; of one that is not there, that it holds nothing.
local function log_info()
  local of = { ['last-generated-id'] = '0-0', ['entries-added'] = 0, length = 0, oldest = '' }
  if redis.call('EXISTS', KEYS[2]) == 1 then
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

local known = redis.call('HMGET', KEYS[1], 'run', 'life', 'turn', 'since', 'born')
local life, turn, since, born = known[2], tonumber(known[3] or nil), tonumber(known[4] or nil), known[5]

local function begin_life()
  life, turn, born = ARGV[2], 0, log_info()['last-generated-id']
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'life', life, 'turn', turn, 'since', now_ms, 'born', born)
end

if known[1] ~= ARGV[1] or not (life and turn and since and born) then
  begin_life()
elseif now_ms - since > TURN_MS or now_ms < since then
  turn = turn + 1
  redis.call('HSET', KEYS[1], 'turn', turn, 'since', now_ms)
end
local fresh_epoch = life .. '.' .. string.format('%.0f', turn)
