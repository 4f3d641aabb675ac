-- The only way a pod event enters: picture, checkpoint, record and result stream in one step.
-- KEYS record, pods, watch, watcher lease
-- ARGV prefix, token ('' from a launcher), event, pod, uid ('' without a pod), resource version,
--      attempt, state, final (1/0), gone (1/0), leader, create window (ms), version of the event
--      that was put before this one or '', what a pod that has not started waits
--      for, or ''
local prefix, token, event, pod, uid = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local rv, attempt, final, gone = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[9] == '1', ARGV[10] == '1'
local at = string.format('%d', now_ms())
if token ~= '' then
  if not holds(KEYS[4], token) then return 'lease' end
  -- Redis may have refused the event before: whoever goes on from the checkpoint needs both.
  local watch = progress_of(KEYS[3])
  if ARGV[13] ~= '' and watch.checkpoint ~= ARGV[13] then return 'gap' end
  -- First of all writes: Redis refuses it when its memory is full, and not a deletion.
  redis.call('HSET', KEYS[3], 'checkpoint', ARGV[6], 'leader', ARGV[11])
  watch.checkpoint = ARGV[6]
  if gone then redis.call('HDEL', KEYS[2], pod) else redis.call('HSET', KEYS[2], pod, event) end
end
local found = record(KEYS[1], 'rv', 'generation', 'condemned', 'event', 'told', 'started_at')
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
if uid == '' and found.event == event then return 'stale' end
local generation = progress_of(KEYS[3]).generation
if found.uid and generation == (found.generation or '0') and rv <= tonumber(found.rv or 0) then
  return 'stale'
end
local about = {'event', event, 'event_at', at}
local function note(name, value)
  about[#about + 1] = name
  about[#about + 1] = value
end
if not found.uid and uid ~= '' then
  note('uid', uid)
  note('pod', pod)
end
if uid ~= '' then
  note('rv', ARGV[6])
  if generation ~= found.generation then note('generation', generation) end
end
if final then
  note('final', '1')
  note('finished_at', at)
end
if ARGV[8] == 'running' and not found.started_at then note('started_at', at) end
-- That a pod which has not started was bound, or written to, is no news for its owner.
local waits_on = ARGV[14] ~= '' and found.told == ARGV[14]
if ARGV[14] ~= '' and not waits_on then note('told', ARGV[14]) end
redis.call('HSET', KEYS[1], unpack(about))
if waits_on then return 'applied' end
tell_owner(prefix, found.owner, event, found.condemned)
return 'applied'
