-- A lease: a string with a life time that only its token may renew or release.
-- KEYS lease
-- ARGV step (acquire, renew, release), token, ttl (ms)
local present = redis.call('GET', KEYS[1])
if ARGV[1] == 'acquire' and (not present or present == ARGV[2]) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 'held'
end
if not present then return 'missing' end
if present ~= ARGV[2] then return 'taken' end
if ARGV[1] == 'release' then
  redis.call('DEL', KEYS[1])
  return 'missing'
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'held'
