-- A parked launch waits for room in its namespace.
-- KEYS full, full of the namespace, its launches, parked
-- ARGV namespace, ms between two looks, ms that this is remembered, item, why there was no room
--      just now, '' if it did not ask
local asked = ARGV[5] ~= ''
if asked then
  redis.call('HSETNX', KEYS[2], 'since', string.format('%d', now_ms()))
  redis.call('HSET', KEYS[2], 'why', ARGV[5], 'step', 1, 'out', 0, 'found', 0)
  redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
end
if redis.call('ZSCORE', KEYS[4], ARGV[4]) then
  if redis.call('EXISTS', KEYS[2]) == 0 then
    -- Room was found while it was being parked.
    redis.call('ZADD', KEYS[4], now_ms(), ARGV[4])
  else
    -- Whoever was refused goes to the end: a smaller one may find room.
    if asked then redis.call('ZREM', KEYS[3], ARGV[4]) end
    redis.call('ZADD', KEYS[3], 'NX', now_ms(), ARGV[4])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
