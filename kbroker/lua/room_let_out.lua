-- Of every full namespace whose time has come, let the launches that waited longest look for room.
-- KEYS full, parked
-- ARGV ms between two looks, ms that this is remembered
local at = now_ms()
for _, namespace in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at)) do
  local key = KEYS[1] .. ':' .. namespace
  local launches = key .. ':launches'
  local full = fields(key, 'step', 'found')
  local out = 0
  while full.step and out < tonumber(full.step) do
    local item = redis.call('ZRANGE', launches, 0, 0)[1]
    if not item then break end
    redis.call('ZREM', launches, item)
    if redis.call('ZSCORE', KEYS[2], item) then
      redis.call('ZADD', KEYS[2], at, item)
      out = out + 1
    end
  end
  if out > 0 then
    redis.call('HSET', key, 'out', out, 'found', 0)
    redis.call('ZADD', KEYS[1], at + tonumber(ARGV[1]), namespace)
    redis.call('PEXPIRE', key, ARGV[2])
    redis.call('PEXPIRE', launches, ARGV[2])
  elseif not full.step or tonumber(full.found) > 0 then
    -- Nobody waits, and the last one found room.
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], namespace)
  end
end
return 1
