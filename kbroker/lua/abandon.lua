-- The launches of executors that are gone for good: their records expire, their names go.
-- KEYS watcher lease, executors, tasks
-- ARGV prefix, token, ttl (ms), cursor, how many to look at, executors...
-- Reply: -1 without the lease, else the next cursor; '0' at the end.
if not holds(KEYS[1], ARGV[2]) then return '-1' end
local gone = {}
for i = 6, #ARGV do
  gone[ARGV[i]] = redis.call('EXISTS', ARGV[1] .. 'executor:' .. ARGV[i]) == 0
end
local step = redis.call('ZSCAN', KEYS[3], ARGV[4], 'COUNT', ARGV[5])
for i = 1, #step[2], 2 do
  local key = ARGV[1] .. 'task:' .. step[2][i]
  local owner = redis.call('HGET', key, 'owner')
  if not owner or gone[owner] then
    redis.call('PEXPIRE', key, ARGV[3])
    redis.call('ZREM', KEYS[3], step[2][i])
  end
end
if step[1] == '0' then
  for id, dead in pairs(gone) do
    if dead then redis.call('ZREM', KEYS[2], id) end
  end
end
return step[1]
