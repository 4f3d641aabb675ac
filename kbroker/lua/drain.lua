-- Hand out what is due, re-scored so that a launcher killed meanwhile loses nothing.
-- KEYS parked, parked messages
-- ARGV limit, lease (ms)
local at = now_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at, 'LIMIT', 0, ARGV[1])
local out = {}
for _, item in ipairs(due) do
  local message = redis.call('HGET', KEYS[2], item)
  if message then
    redis.call('ZADD', KEYS[1], at + tonumber(ARGV[2]), item)
    out[#out + 1] = item
    out[#out + 1] = message
  else
    redis.call('ZREM', KEYS[1], item)
  end
end
return out
