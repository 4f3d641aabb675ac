-- The leading watcher's progress.
-- KEYS watcher lease, watch
-- ARGV token, leader, step (checkpoint, relisting, synced), resource version, new generation (1/0)
if not holds(KEYS[1], ARGV[1]) then return 0 end
local at = string.format('%d', now_ms())
redis.call('HSET', KEYS[2], 'leader', ARGV[2])
if ARGV[3] == 'relisting' then
  -- From here to `synced` the picture proves nobody's absence.
  redis.call('HDEL', KEYS[2], 'synced_at')
  if ARGV[5] == '1' then redis.call('HINCRBY', KEYS[2], 'generation', 1) end
  return 1
end
redis.call('HSET', KEYS[2], 'checkpoint', ARGV[4], 'progress', at)
if ARGV[3] == 'synced' then redis.call('HSET', KEYS[2], 'listed', ARGV[4], 'synced_at', at) end
return 1
