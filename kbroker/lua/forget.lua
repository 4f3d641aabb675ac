-- Remove the result streams of executors that are gone for good.
-- KEYS watcher lease, executors
-- ARGV prefix, token, for how long an executor must be gone (ms), how many to look at
-- Reply: 0 without the lease, else 1; then the executors that have none any more.
if not holds(KEYS[1], ARGV[2]) then return {0} end
local until_then = now_ms() - tonumber(ARGV[3])
local silent = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_then, 'LIMIT', 0, ARGV[4])
local out = {1}
for _, id in ipairs(silent) do
  if redis.call('EXISTS', ARGV[1] .. 'executor:' .. id) == 0 then
    -- What a pod that ran on said meanwhile makes it a stream again: gone when none came.
    if redis.call('DEL', ARGV[1] .. 'results:' .. id) == 0 then out[#out + 1] = id end
  end
end
return out
