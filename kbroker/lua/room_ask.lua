-- Which launches may be tried in a namespace, if it is known to be full.
-- KEYS full, full of the namespace, its launches
-- ARGV namespace, ms between two looks, then for each launch its item, or '' if it never waited
-- Reply: nothing if there may be room, else why there is none, and for each launch 1 or 0.
local why = redis.call('HGET', KEYS[2], 'why')
if not why then return {} end
local at = now_ms()
local due = redis.call('ZCARD', KEYS[3]) == 0
  and tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) <= at
local out = {why}
for i = 3, #ARGV do
  local may = false
  if ARGV[i] ~= '' then
    may = not redis.call('ZSCORE', KEYS[3], ARGV[i])  -- it was let out
  elseif due then
    may, due = true, false  -- nobody waits before it: it is the next look
    redis.call('HSET', KEYS[2], 'out', 1, 'found', 0)
    redis.call('ZADD', KEYS[1], at + tonumber(ARGV[2]), ARGV[1])
  end
  out[#out + 1] = may and 1 or 0
end
return out
