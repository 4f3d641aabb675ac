-- A launch found room in a namespace that was known to be full.
-- KEYS full, full of the namespace
-- ARGV namespace, most launches that are let out at once
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local found = redis.call('HINCRBY', KEYS[2], 'found', 1)
local full = fields(KEYS[2], 'step', 'out')
if found >= tonumber(full.out or 0) then
  -- All that were let out found room: more of them follow, at once.
  local step = math.min(tonumber(full.step or 1) * 2, tonumber(ARGV[2]))
  redis.call('HSET', KEYS[2], 'step', step, 'out', 0)
  redis.call('ZADD', KEYS[1], now_ms(), ARGV[1])
end
return 1
