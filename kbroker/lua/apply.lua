-- The only way a pod event enters: picture, checkpoint, record and result stream in one step.
-- KEYS record, pods, watch, watcher lease
-- ARGV prefix, token ('' from a launcher), event, pod, uid ('' without a pod), resource version,
--      attempt, state, final (1/0), gone (1/0), leader, create window (ms), version of the event
--      that was put before this one or ''
local prefix, token, event, pod, uid = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local rv, attempt, final, gone = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[9] == '1', ARGV[10] == '1'
local at = string.format('%d', now_ms())
if token ~= '' then
  if not holds(KEYS[4], token) then return 'lease' end
  -- Redis may have refused the event before: whoever goes on from the checkpoint needs both.
  if ARGV[13] ~= '' and redis.call('HGET', KEYS[3], 'checkpoint') ~= ARGV[13] then return 'gap' end
  -- First of all writes: Redis refuses it when its memory is full, and not a deletion.
  redis.call('HSET', KEYS[3], 'checkpoint', ARGV[6], 'leader', ARGV[11])
  if gone then redis.call('HDEL', KEYS[2], pod) else redis.call('HSET', KEYS[2], pod, event) end
end
local found = record(KEYS[1])
if not found.state or attempt > found.attempt then return 'unknown' end
local function refuse(reason)
  if uid == '' or gone then return 'stale' end
  unwanted(prefix, KEYS[1], found, pod, uid, reason)
  return 'unwanted'
end
if attempt < found.attempt then return refuse('of an earlier attempt') end
if uid ~= '' and found.create_before == 0 then
  -- The record that granted this pod is lost: its window is not over, it is not known.
  found.create_before = now_ms() + tonumber(ARGV[12])
  redis.call('HSET', KEYS[1], 'create_before', string.format('%d', found.create_before))
end
if found.state == 'withdrawn' then return refuse('the launch was withdrawn') end
if found.uid and uid ~= found.uid then return refuse('another pod runs this attempt') end
if found.final or found.state == 'final' then
  if not found.uid then return refuse('the launch had already failed') end
  return 'final'
end
local before = redis.call('HGET', KEYS[1], 'event')
if uid == '' and before == event then return 'stale' end
local generation = redis.call('HGET', KEYS[3], 'generation') or '0'
if found.uid and generation == (found.generation or '0') and rv <= found.rv then return 'stale' end
local about = {'event', event, 'event_at', at}
local function note(...)
  for _, value in ipairs({...}) do about[#about + 1] = value end
end
if uid ~= '' then note('uid', uid, 'pod', pod, 'rv', ARGV[6], 'generation', generation) end
if final then note('final', '1', 'finished_at', at) end
redis.call('HSET', KEYS[1], unpack(about))
if ARGV[8] == 'running' then redis.call('HSETNX', KEYS[1], 'started_at', at) end
-- That a pod which has not started was bound, or written to, is no news for its owner.
if ARGV[8] == 'pending' and found.uid and before then
  local now, last = cjson.decode(event), cjson.decode(before)
  if last.state == 'pending' and last.cause == now.cause and last.message == now.message then
    return 'applied'
  end
end
tell_owner(prefix, found.owner, event, found.condemned)
return 'applied'
