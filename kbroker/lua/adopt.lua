-- Become the owner of a launch, if its owner is dead; rewrite a lost record.
-- KEYS executor lease, record, pods, watch, tasks
-- ARGV prefix, token, owner, digest, identity (JSON object), known event (JSON) or '',
--      known attempt, create window (ms), claim (1: the scheduler gave it to this executor, which
--      has not had it yet; 0: it had it), then the pod names of attempt 1, 2, ...
local prefix, owner, names = ARGV[1], ARGV[3], 9
if not holds(KEYS[1], ARGV[2]) then return {'lease'} end
local found = record(KEYS[2])
local progress = fields(KEYS[4], 'synced_at', 'progress', 'checkpoint', 'since')
-- Beside the record, what the picture says: whether it has the pod, up to when and which version
-- it is complete; and whether the message still waits.
local function reply(outcome, pod)
  note_executor(prefix, owner)
  return {outcome, redis.call('HGETALL', KEYS[2]), redis.call('HEXISTS', KEYS[3], pod or ''),
    progress.synced_at and progress.progress or '0', progress.checkpoint or '0',
    waits(prefix, found, 'launch:' .. ARGV[4] .. ':' .. tostring(found.attempt)) and 1 or 0}
end
if found.state then
  if found.owner ~= owner then
    local holder = redis.call('GET', prefix .. 'executor:' .. found.owner)
    -- A successor under the same id knows nothing of it before it claims it, too.
    if holder and (ARGV[9] == '0' or holder == found.owner_token) then
      return {'owned', found.owner}
    end
  end
  own(KEYS[2], owner, ARGV[2])
  return reply('adopted', found.pod or ARGV[names + found.attempt])
end
local event, attempt = ARGV[6], ARGV[7]
-- A pod of an earlier attempt than the known one is a leftover and says nothing of the launch.
for i = #ARGV, names + tonumber(ARGV[7]), -1 do
  local last = redis.call('HGET', KEYS[3], ARGV[i])
  if last then
    event, attempt = last, tostring(i - names)
    break
  end
end
if event == '' then
  return {'missing', progress.synced_at and progress.progress or '0', progress.since or '0'}
end
create_record(KEYS[2], KEYS[5], ARGV[4], ARGV[5], tonumber(ARGV[8]), attempt, owner, ARGV[2])
local pod = cjson.decode(event)
if pod.uid then
  redis.call('HSET', KEYS[2], 'uid', pod.uid, 'pod', pod.pod, 'rv', pod.resource_version,
    'generation', redis.call('HGET', KEYS[4], 'generation') or '0', 'event', event,
    'event_at', string.format('%d', now_ms()))
  if pod.state == 'succeeded' or pod.state == 'failed' then redis.call('HSET', KEYS[2], 'final', '1') end
end
return reply('rewritten', pod.pod)
