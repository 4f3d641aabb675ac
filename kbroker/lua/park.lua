-- Set a message aside until it is due; its queue entry goes in the same step.
-- KEYS parked, parked messages, record (unused for a deletion)
-- ARGV prefix, item, message, delay (ms), queue, entry or '', attempt ('' for a deletion),
--      event or '', '1' for a launch whose pod waits for more than its creation
local prefix, item = ARGV[1], ARGV[2]
local keep = true
if ARGV[7] ~= '' then
  local found = record(KEYS[3])
  keep = found.state == 'wanted' and found.attempt == tonumber(ARGV[7])
    and not (found.uid and ARGV[9] ~= '1') and not found.final
  if keep then
    redis.call('HSET', KEYS[3], 'entry', 'parked')
    if ARGV[8] ~= '' and not found.uid and redis.call('HGET', KEYS[3], 'event') ~= ARGV[8] then
      redis.call('HSET', KEYS[3], 'event', ARGV[8])
      tell_owner(prefix, found.owner, ARGV[8], nil)
    end
  end
end
if keep then
  redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[4]), item)
  redis.call('HSET', KEYS[2], item, ARGV[3])
else
  redis.call('ZREM', KEYS[1], item)
  redis.call('HDEL', KEYS[2], item)
end
if ARGV[6] ~= '' then
  redis.call('XACK', ARGV[5], GROUP, ARGV[6])
  redis.call('XDEL', ARGV[5], ARGV[6])
end
return keep and 'parked' or 'dropped'
