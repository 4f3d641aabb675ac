-- A user ends a launch, whoever owns it: nothing more is created, what exists goes, its owner
-- is told as of a failure. What has ended by itself stays as it ended.
-- KEYS record, tasks
-- ARGV prefix, digest, message for the owner, ttl (ms)
-- Reply: outcome (ok, unknown, final, or withdrawn), create_before, Redis' clock, attempt, pod, rv
local prefix, digest = ARGV[1], ARGV[2]
local found = record(KEYS[1])
local at = string.format('%d', now_ms())
local function reply(outcome)
  return {outcome, string.format('%d', found.create_before), at,
    tostring(found.attempt or 0), found.pod or '', found.rv or '0'}
end
if not found.state then return reply('unknown') end
if found.state ~= 'wanted' then return reply(found.state) end
local about = fields(KEYS[1], 'event', 'key', 'launch_id', 'rv')
local last = about.event and cjson.decode(about.event) or {}
local attempt, uid, pod = found.attempt, found.uid or nil, found.pod
if last.state == 'succeeded' then return reply('final') end
if last.state == 'failed' then
  -- A pod that provably ran nothing is followed by the next attempt: that one is cancelled.
  if not uid or last.started ~= 'never' then return reply('final') end
  unwanted(prefix, KEYS[1], found, pod, uid, ARGV[3])
  attempt, uid, pod = attempt + 1, nil, nil
end
if found.entry == 'parked' then
  local parked = prefix .. 'parked.' .. found.cluster
  local item = 'launch:' .. digest .. ':' .. tostring(found.attempt)
  redis.call('ZREM', parked, item)
  redis.call('HDEL', parked .. '.messages', item)
elseif found.entry then
  redis.call('XACK', found.queue, GROUP, found.entry)
  redis.call('XDEL', found.queue, found.entry)
end
if uid then unwanted(prefix, KEYS[1], found, pod, uid, ARGV[3]) end
local event = cjson.encode({
  v = 1, deployment = found.deployment, key = cjson.decode(about.key),
  launch_id = about.launch_id, attempt = attempt, cluster = found.cluster,
  namespace = found.namespace, pod = pod or '', uid = uid, state = 'failed',
  started = last.state == 'running' and 'yes' or 'unknown', cause = 'cancelled',
  resource_version = uid and about.rv or '0', message = ARGV[3], node = uid and last.node or nil,
})
redis.call('HSET', KEYS[1], 'state', 'withdrawn', 'reason', ARGV[3], 'event', event,
  'event_at', at, 'final', '1', 'finished_at', at, 'closed_at', at)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZREM', KEYS[2], digest)
tell_owner(prefix, found.owner, event, nil)
return reply('ok')
