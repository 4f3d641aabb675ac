-- A drained item is done.
-- KEYS parked, parked messages
-- ARGV item
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
