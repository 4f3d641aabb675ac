-- The leading watcher's progress.
-- KEYS watcher lease, watch
-- ARGV token, leader, step (checkpoint, relisting, synced), resource version, new generation (1/0)
if not holds(KEYS[1], ARGV[1]) then return 0 end
local at = string.format('%d', now_ms())
redis.call('HSET', KEYS[2], 'leader', ARGV[2])
if ARGV[3] == 'relisting' then
  -- From here to `synced` the picture proves nobody's absence.
  redis.call('HDEL', KEYS[2], 'synced_at')
  redis.call('HSET', KEYS[2], 'listing_at', at)
  if ARGV[5] == '1' then redis.call('HINCRBY', KEYS[2], 'generation', 1) end
  return 1
end
redis.call('HSET', KEYS[2], 'checkpoint', ARGV[4])
if ARGV[3] == 'synced' then
  -- The list shows what existed when it was asked for, not when it was worked off.
  local asked = redis.call('HGET', KEYS[2], 'listing_at') or at
  redis.call('HSET', KEYS[2], 'listed', ARGV[4], 'synced_at', at, 'progress', asked)
  redis.call('HSETNX', KEYS[2], 'since', asked)
else
  redis.call('HSET', KEYS[2], 'progress', at)
end
return 1
