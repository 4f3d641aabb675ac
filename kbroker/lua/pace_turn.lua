-- A complaint was judged: the rate grows along another curve, or is not limited any more.
-- KEYS pace
-- ARGV turn that was judged; complaint that was judged (ms); since, start, peak, recovery of the
--      new curve, all '' for none
-- Reply: 1, or 0 where another launcher was faster.
local pace = fields(KEYS[1], 'turn', 'complained')
if (pace.turn or '0') ~= ARGV[1] or pace.complained ~= ARGV[2] then return 0 end
local at = string.format('%d', now_ms())
redis.call('HDEL', KEYS[1], 'complained', 'since', 'start', 'peak', 'recovery', 'rate')
redis.call('HSET', KEYS[1], 'judged', ARGV[2], 'window', at, 'done', 0, 'refused', 0,
  'window_before', at, 'done_before', 0, 'refused_before', 0)
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], 'turn')
else
  redis.call('HSET', KEYS[1], 'turn', ARGV[2], 'since', ARGV[3], 'start', ARGV[4],
    'peak', ARGV[5], 'recovery', ARGV[6])
end
return 1
