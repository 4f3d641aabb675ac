-- Whether a launch stands as its owner believes, so that nothing about it needs to be repaired.
-- KEYS executor lease, record, pods
-- ARGV prefix, token, owner, attempt, parked item, pod, uid, resource version of the last event
--      ('' each while none is known)
-- Reply: 1, or 0 where it is to be looked at closely.
local found = record(KEYS[2], 'owner_token', 'dead', 'rv')
local ours = found.state == 'wanted' and found.owner == ARGV[3] and found.owner_token == ARGV[2]
if not ours or found.attempt ~= tonumber(ARGV[4]) or found.final or found.dead then return 0 end
if not holds(KEYS[1], ARGV[2]) then return 0 end
if found.uid then
  if found.uid ~= ARGV[7] or tonumber(found.rv or 0) ~= tonumber(ARGV[8]) then return 0 end
  return redis.call('HEXISTS', KEYS[3], ARGV[6])
end
if ARGV[7] ~= '' then return 0 end
-- Why it waits was told, if there was anything to tell.
if ARGV[6] == '' and redis.call('HEXISTS', KEYS[2], 'event') == 1 then return 0 end
return waits(ARGV[1], found, ARGV[5]) and 1 or 0
