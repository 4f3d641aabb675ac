-- Remove consumers that left nothing behind: ours that closes, and those of dead processes.
-- A consumer is never removed with entries pending: they would be lost.
-- KEYS queue
-- ARGV group, idle (ms), consumer that closes or ''
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #info, 2 do about[info[i]] = info[i + 1] end
  if about.pending == 0 and (about.name == ARGV[3] or about.idle > tonumber(ARGV[2])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
  end
end
return 1
