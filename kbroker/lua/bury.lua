-- A message that cannot be processed: kept with its reason, its permission withdrawn.
-- KEYS dead, record
-- ARGV prefix, queue, entry or '', reason, message, attempt ('' when the envelope cannot be read),
--      event or ''
local found = ARGV[6] ~= '' and record(KEYS[2]) or {}
-- Whoever removes the entry buries it: two launchers must not bury it twice.
if ARGV[3] ~= '' then
  if #redis.call('XRANGE', ARGV[2], ARGV[3], ARGV[3]) == 0 then return 0 end
elseif found.dead and found.attempt == tonumber(ARGV[6]) then
  return 0
end
-- First of all writes: Redis refuses it when its memory is full, and not the removal.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', DEAD_LENGTH, '*', 'queue', ARGV[2], 'entry', ARGV[3],
  'reason', ARGV[4], 'message', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('XACK', ARGV[2], GROUP, ARGV[3])
  redis.call('XDEL', ARGV[2], ARGV[3])
end
if ARGV[6] == '' then return 1 end
if found.state == 'wanted' and found.attempt == tonumber(ARGV[6]) and not found.final then
  redis.call('HSET', KEYS[2], 'dead', ARGV[4])
  redis.call('HDEL', KEYS[2], 'entry')
  if ARGV[7] ~= '' and not found.uid then
    redis.call('HSET', KEYS[2], 'event', ARGV[7])
    tell_owner(ARGV[1], found.owner, ARGV[7], nil)
  end
end
return 1
