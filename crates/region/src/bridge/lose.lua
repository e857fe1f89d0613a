-- Passes over what another region published on a channel and neither its log nor its history holds any more.
--
-- KEYS[3] cursor (hash) · KEYS[4] pos (hash)
-- ARGV[3] the other region · [4] the leader's token · [5] the cursor as the leader knows it
-- ARGV[6] channel · [7] where the channel stands there: epoch · [8] offset
-- ARGV[9] log_age_ms · [10] position_age_ms
-- Answers {`fenced`, the token to be exceeded}, {`moved`, where the cursor is}, or
-- {`ok`, how many were applied: none, how many were known: none, 1 if anything is lost}.
--
-- An entry of the log says so to all nodes: nothing may follow on this channel that would show it.
local region, epoch, offset = ARGV[3], ARGV[7], ARGV[8]
local held = redis.call('HMGET', KEYS[3], region, region .. ':fence')
local refused = refusal(KEYS[3], region, ARGV[4], held[2]) or moved(held[1], ARGV[5])
if refused then
  return refused
end
local last_epoch, last_offset = string.match(redis.call('HGET', KEYS[4], region) or '', '^(.*):(%d+)$')
if last_epoch == epoch and tonumber(last_offset) >= tonumber(offset) then
  return { 'ok', '0', '0', '0' }
end
local oldest = string.format('%.0f', math.max(0, now_ms - tonumber(ARGV[9])))
redis.call('XADD', KEYS[2], 'MINID', '~', oldest, '*', 'c', ARGV[6], 'o', region, 'e', epoch, 'n', offset, 'f', 'l')
log_begins()
leave_epoch(KEYS[4], region, last_epoch, epoch)
redis.call('HSET', KEYS[4], region, epoch .. ':' .. offset)
redis.call('PEXPIRE', KEYS[4], ARGV[10])
return { 'ok', '0', '0', '1' }
