-- Shared by every script of the launch record. Redis' clock is the only clock.
local GROUP = 'launchers'
local DEAD_LENGTH = 10000
-- A pod whose removal was asked for is asked for again only after this time, so
-- that repeated events of it cost nothing and a lost request is still repaired.
local ASK_AGAIN_MS = 60000

-- One run has one present, however many calls it carries out.
local present
local function now_ms()
  if not present then
    local time = redis.call('TIME')
    present = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return present
end

-- The named fields of a hash as a table; missing ones are nil.
local function fields(key, ...)
  local names = {...}
  local values = redis.call('HMGET', key, unpack(names))
  local found = {}
  for i, name in ipairs(names) do
    if values[i] then found[name] = values[i] end
  end
  return found
end

-- A launch record. What nearly every script asks is read at once, and what it names besides; the
-- rest when it is asked for, which must be before the script changes it.
local function record(key, ...)
  local names = {'state', 'owner', 'attempt', 'create_before', 'uid', 'final', ...}
  local values = redis.call('HMGET', key, unpack(names))  -- false where there is none
  local found = {
    state = values[1], owner = values[2], uid = values[5], final = values[6],
    attempt = tonumber(values[3]) or false,  -- Lua 5.1 prints it without a point
    create_before = tonumber(values[4] or 0),
  }
  for i = 7, #names do found[names[i]] = values[i] end
  return setmetatable(found, {__index = function(_, name)
    return redis.call('HGET', key, name) or nil
  end})
end

-- What one run has read or written stays so until its end: nobody else has a turn meanwhile.
local leases, watches, noted = {}, {}, {}

local function holds(lease, token)
  if leases[lease] == nil then leases[lease] = redis.call('GET', lease) end
  return leases[lease] == token
end

-- Up to where a watch has been applied, and of which generation its versions are.
local function progress_of(watch)
  if not watches[watch] then
    local values = redis.call('HMGET', watch, 'checkpoint', 'generation')
    watches[watch] = {checkpoint = values[1], generation = values[2] or '0'}
  end
  return watches[watch]
end

-- Whose launch it is: which executor's, and which of the processes that had its id.
local function own(key, owner, token)
  redis.call('HSET', key, 'owner', owner, 'owner_token', token)
end

-- Ask a launcher to remove a pod. What may be running is looked at at once, and stopped while
-- its name must be held; what has finished waits, parked, until it need not.
local function ask_removal(prefix, message, finished)
  local at = now_ms()
  message.v = 1
  local body = cjson.encode(message)
  if finished and message.not_before > at then
    local parked = prefix .. 'parked.' .. message.cluster
    local item = message.removal .. ':' .. message.uid
    redis.call('ZADD', parked, message.not_before, item)
    redis.call('HSET', parked .. '.messages', item, body)
    return
  end
  local queue = 'delete.' .. message.cluster
  redis.call('XADD', prefix .. queue, '*', 'message', '{"queue_name":"' .. queue ..
    '","actor_name":"delete","args":[' .. body .. '],"kwargs":{},"options":{},"message_id":"' ..
    message.removal .. ':' .. message.uid .. '","message_timestamp":' .. string.format('%d', at) .. '}')
end

-- Whether a pod's removal is to be asked for now; the record remembers that it was.
local function due_to_ask(key, uid)
  local asked = redis.call('HGET', key, 'removal:' .. uid)
  if asked and now_ms() - tonumber(asked) < ASK_AGAIN_MS then return false end
  redis.call('HSET', key, 'removal:' .. uid, string.format('%d', now_ms()))
  return true
end

-- A pod that its record does not want: ask once for its removal.
local function unwanted(prefix, key, wants, pod, uid, reason)
  if not due_to_ask(key, uid) then return end
  ask_removal(prefix, {
    deployment = wants.deployment, cluster = wants.cluster, namespace = wants.namespace,
    pod = pod, uid = uid, removal = 'delete', not_before = wants.create_before, reason = reason,
  })
end

-- Whether the launch still waits in its queue or is parked.
local function waits(prefix, found, item)
  if not found.entry then return false end
  if found.entry == 'parked' then
    return redis.call('ZSCORE', prefix .. 'parked.' .. found.cluster, item) ~= false
  end
  return #redis.call('XRANGE', found.queue, found.entry, found.entry) > 0
end

-- Where Redis was emptied, an executor that dies before it renews its lease is named by nothing
-- else; what it leaves would stay.
local function note_executor(prefix, owner)
  if noted[owner] then return end
  redis.call('ZADD', prefix .. 'executors', 'NX', string.format('%d', now_ms()), owner)
  noted[owner] = true
end

local function tell_owner(prefix, owner, event, condemned)
  local stream = prefix .. 'results:' .. owner
  note_executor(prefix, owner)
  if condemned then
    return redis.call('XADD', stream, '*', 'event', event, 'condemned', condemned)
  end
  return redis.call('XADD', stream, '*', 'event', event)
end

-- `window`: for how long a grant of a lost record may still create a pod (ms).
local function create_record(key, tasks, digest, pairs_json, window, attempt, owner, token)
  local at = string.format('%d', now_ms())
  local values = {'v', '1', 'state', 'wanted', 'published_at', at, 'attempt', attempt,
    'owner', owner, 'owner_token', token}
  local function put(name, value)
    values[#values + 1] = name
    values[#values + 1] = value
  end
  for name, value in pairs(cjson.decode(pairs_json)) do put(name, value) end
  if window > 0 then put('create_before', string.format('%d', now_ms() + window)) end
  redis.call('HSET', key, unpack(values))
  redis.call('PERSIST', key)
  redis.call('ZADD', tasks, at, digest)
end
