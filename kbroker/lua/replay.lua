-- Put a dead message back on a queue, where that can start nothing twice.
-- KEYS dead, record (of a launch; else unused), queue
-- ARGV prefix, dead id, message, attempt ('' for what is no launch), parked item
if #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2]) == 0 then return {'gone'} end
local found
if ARGV[4] ~= '' then
  -- What publish asks for, and that its owner has not been told that it failed.
  found = record(KEYS[2])
  if not found.state then return {'absent'} end
  if found.state ~= 'wanted' then return {found.state} end
  if found.attempt ~= tonumber(ARGV[4]) then return {'attempt'} end
  if found.uid then return {'launched'} end
  if found.final then return {'final'} end
  if found.dead then return {'dead'} end
  if waits(ARGV[1], found, ARGV[5]) then return {'waiting'} end
  if found.create_before > now_ms() then return {'window'} end
end
local entry = redis.call('XADD', KEYS[3], '*', 'message', ARGV[3])
if found then redis.call('HSET', KEYS[2], 'entry', entry, 'queue', KEYS[3]) end
redis.call('XDEL', KEYS[1], ARGV[2])
return {'ok'}
