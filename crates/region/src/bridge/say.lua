-- Says here what another region's sessions emitted; without events it only shuts out earlier leaders.
--
-- KEYS[1] cursor (hash)
-- ARGV[1] the other region · [2] the leader's token · [3] where events are said · then the events
-- Answers {`ok`} or {`fenced`, the token to be exceeded}.
local refused = refusal(KEYS[1], ARGV[1], ARGV[2], redis.call('HGET', KEYS[1], ARGV[1] .. ':fence'))
if refused then
  return refused
end
for index = 4, #ARGV do
  redis.call('PUBLISH', ARGV[3], ARGV[index])
end
return { 'ok' }
