-- Write the launch record and its queue entry in one step.
-- KEYS executor lease, record, queue, tasks
-- ARGV prefix, token, owner, attempt, entry message, parked item, digest, identity (JSON object),
--      create window (ms)
local prefix, owner, attempt = ARGV[1], ARGV[3], tonumber(ARGV[4])
if not holds(KEYS[1], ARGV[2]) then return {'lease'} end
local found = record(KEYS[2], 'dead')
-- Whether the attempt came to nothing because its message was too old: it may have a newer one.
local function expired()
  return not found.uid and cjson.decode(found.event or '{}').cause == 'expired'
end
if found.state then
  if found.owner ~= owner then return {'owner', found.owner} end
  if found.state ~= 'wanted' then return {found.state} end
  if attempt == found.attempt then
    if found.uid then return {'launched'} end
    if found.final and not expired() then return {'final'} end
    if found.dead then return {'dead'} end
    if not found.final and waits(prefix, found, ARGV[6]) then return {'waiting', found.entry} end
  elseif attempt ~= found.attempt + 1 then
    return {'attempt', tostring(found.attempt)}
  end
  -- Until then a request of the last grant may still create its pod.
  if found.create_before > now_ms() then
    return {'window', string.format('%d', found.create_before)}
  end
  if attempt ~= found.attempt or found.final then
    if found.uid then
      unwanted(prefix, KEYS[2], found, found.pod, found.uid, 'replaced by the next attempt')
    end
    -- First of all writes: Redis refuses it when its memory is full, and not a deletion.
    redis.call('HSET', KEYS[2], 'attempt', ARGV[4])
    redis.call('HDEL', KEYS[2], 'create_before', 'uid', 'pod', 'rv', 'event', 'final', 'dead',
      'condemned', 'told', 'granted_at', 'started_at', 'finished_at', 'launcher')
  end
else
  -- A lost record does not say until when the attempt before may still be created: wait for it.
  local window = attempt > 1 and tonumber(ARGV[9]) or 0
  create_record(KEYS[2], KEYS[4], ARGV[7], ARGV[8], window, ARGV[4], owner, ARGV[2])
  if window > 0 then return {'window', redis.call('HGET', KEYS[2], 'create_before')} end
end
note_executor(prefix, owner)
local entry = redis.call('XADD', KEYS[3], '*', 'message', ARGV[5])
redis.call('HSET', KEYS[2], 'entry', entry, 'queue', KEYS[3])
return {'ok', entry}
