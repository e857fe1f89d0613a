-- What the scripts that change a partition's presence share; `life.lua` comes before it.
--
-- KEYS[3] leases (sorted set): holder → until when, by this server's clock
-- ARGV[3] the pub/sub channel of changes
--
-- `PRESENCE:CHANNEL` (hash): session → `holder stay since_ms details`. A holder is a node, and the stay a number that
-- grows whenever a session passes to another holder. The details begin with the claim of the session's transport.
-- `PRESENCE-of:HOLDER` (set): what it holds, channel and session.
local PRESENCE = string.sub(KEYS[3], 1, -#'-holders' - 1)
local LISTED = 1000 -- the most changes of a kind that are said of one channel; the count is exact

local function room(channel)
  return PRESENCE .. ':' .. channel
end

local function held_by(holder)
  return PRESENCE .. '-of:' .. holder
end

local function entry(channel, session)
  return channel .. '\31' .. session
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The fields of a claim (`claim.rs`), in the order in which they count; nothing where there is none.
local function fields(text)
  local attempt, turn, since_ms, number = string.match(text, '^%[(%d+),(%d+),(%d+),(%d+)%]')
  return attempt and { tonumber(attempt), tonumber(turn), tonumber(since_ms), tonumber(number) }
end

-- That of the transport of which these are the details.
local function claim_of(details)
  return fields(string.match(details, '^{"claim":(.*)$') or '')
end

-- Who holds the session on the channel, by which transport, since which stay; nothing if nobody does.
local function held(channel, session)
  local value = redis.call('HGET', room(channel), session)
  if not value then
    return nil
  end
  local holder, stay, since, details = string.match(value, '^(%S+) (%d+) (%d+) (.*)$')
  return {
    value = value,
    holder = holder or '?',
    stay = tonumber(stay) or 0,
    since = since,
    claim = claim_of(details or ''),
  }
end

-- Whether a session is held by a later transport than another one's, of which this is said. Nodes of the version before
-- tell no claims: beside them an arrival counts as it is read, and what is said again by its stay.
local function is_later(found, other)
  if not found.claim or not other.claim then
    return not other.arrives and (found.stay > other.stay or not other.is_own and found.stay == other.stay)
  end
  for field = 1, 4 do
    if found.claim[field] ~= other.claim[field] then
      return found.claim[field] > other.claim[field]
    end
  end
  return false
end

local changes, changed = {}, {}

local function change(kind, channel, session, value)
  local found = changes[channel]
  if not found then
    found = { life = life, channel = channel }
    changes[channel] = found
    changed[#changed + 1] = found
  end
  local list = found[kind] or {}
  found[kind] = list
  if #list < 2 * LISTED then
    list[#list + 1] = session
    list[#list + 1] = value
  end
end

-- Says all changes, with how many are there now. What is said in a partition is numbered, so that whoever misses some
-- of it knows, and knows up to where a census counts.
local function say(swept)
  for _, found in ipairs(changed) do
    found.number = redis.call('HINCRBY', KEYS[1], 'said', 1)
    found.count = redis.call('HLEN', room(found.channel))
    found.swept = swept
    redis.call('PUBLISH', ARGV[3], cmsgpack.pack(found))
  end
end
