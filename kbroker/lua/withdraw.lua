-- Take the permission back: nothing more is created, what exists goes.
-- KEYS executor lease, record, tasks, pods
-- ARGV prefix, token, owner, attempt, parked item, digest, identity (JSON object), reason, ttl (ms),
--      create window (ms), name of the attempt's pod
local prefix, owner = ARGV[1], ARGV[3]
if not holds(KEYS[1], ARGV[2]) then return {'lease'} end
local found = record(KEYS[2])
if found.state and found.owner ~= owner then return {'owner', found.owner} end
if found.state and found.state ~= 'wanted' then return {found.state} end
if not found.state then
  -- A tombstone: a pod that appears late must find that it is not wanted.
  create_record(KEYS[2], KEYS[3], ARGV[6], ARGV[7], tonumber(ARGV[10]), ARGV[4], owner, ARGV[2])
  found = record(KEYS[2])
  -- One that runs on says nothing more: its next event may be its end.
  local last = redis.call('HGET', KEYS[4], ARGV[11])
  if last then
    local uid = cjson.decode(last).uid
    if uid ~= cjson.null then unwanted(prefix, KEYS[2], found, ARGV[11], uid, ARGV[8]) end
  end
end
if found.entry == 'parked' then
  local parked = prefix .. 'parked.' .. found.cluster
  redis.call('ZREM', parked, ARGV[5])
  redis.call('HDEL', parked .. '.messages', ARGV[5])
elseif found.entry then
  redis.call('XACK', found.queue, GROUP, found.entry)
  redis.call('XDEL', found.queue, found.entry)
end
if found.uid then unwanted(prefix, KEYS[2], found, found.pod, found.uid, ARGV[8]) end
redis.call('HSET', KEYS[2], 'state', 'withdrawn', 'reason', ARGV[8],
  'closed_at', string.format('%d', now_ms()))
redis.call('PEXPIRE', KEYS[2], ARGV[9])
redis.call('ZREM', KEYS[3], ARGV[6])
return {'ok'}
