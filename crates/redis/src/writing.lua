-- Before scripts that write, behind `life.lua`.
if refused then
  return refused
end

-- From now on a log that is gone is one that was lost.
local function log_begins()
  if not logged then
    redis.call('HSET', KEYS[1], 'log', '1')
  end
end
