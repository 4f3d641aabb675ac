-- Renew or release entries, but only those that are still this consumer's.
-- KEYS queue
-- ARGV group, consumer, step (renew, release, later), idle time of a released entry (ms),
--      entry ids...
-- renew:   it is worked on; its idle time begins anew.
-- release: it was never begun; anybody may take it at once, and the delivery did not count.
-- later:   this consumer cannot work on it; due after the usual idle time, not counted.
for i = 5, #ARGV do
  local mine = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])[1]
  if mine then
    local count, idle = mine[4], 0
    if ARGV[3] ~= 'renew' then count = math.max(0, count - 1) end
    if ARGV[3] == 'release' then idle = tonumber(ARGV[4]) end
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', idle,
      'RETRYCOUNT', count, 'JUSTID')
  end
end
return 1
