-- Take over entries of consumers that fell silent, by Redis' clock.
-- KEYS queue
-- ARGV group, consumer, idle (ms), limit, highest delivery number to take, deliveries after
--      which an entry is dead
-- Reply: 1 if an entry was passed over because its delivery number is too high, else 0; then
-- id, deliveries (this one included), message; three values an entry.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
local highest, dead = tonumber(ARGV[5]), tonumber(ARGV[6])
local out = {0}
for _, entry in ipairs(pending) do
  local id, deliveries = entry[1], entry[4] + 1
  if deliveries > highest and deliveries <= dead then
    out[1] = 1
  else
    local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', deliveries)
    local found = claimed[1]
    if found then
      local message = ''
      for i = 1, #found[2], 2 do
        if found[2][i] == 'message' then message = found[2][i + 1] end
      end
      out[#out + 1] = id
      out[#out + 1] = deliveries
      out[#out + 1] = message
    else
      -- The entry was deleted while it was pending: nothing is left to do.
      redis.call('XACK', KEYS[1], ARGV[1], id)
    end
  end
end
return out
