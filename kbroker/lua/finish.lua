-- The executor is done with a launch: its pod may go, its events go, its record closes.
-- KEYS executor lease, record, results, tasks
-- ARGV prefix, token, owner, digest, ttl (ms), create window (ms), removal (JSON: pod to delete)
--      or '', entry ids...
local prefix, owner = ARGV[1], ARGV[3]
if not holds(KEYS[1], ARGV[2]) then return 'lease' end
for i = 8, #ARGV do redis.call('XDEL', KEYS[3], ARGV[i]) end
local found = record(KEYS[2])
if found.state and found.owner ~= owner then return 'owner' end
if ARGV[7] ~= '' then
  local message = cjson.decode(ARGV[7])
  -- What a lost record granted may still create a pod: the name is held for a whole window.
  message.not_before = found.state and found.create_before or now_ms() + tonumber(ARGV[6])
  if not found.state or due_to_ask(KEYS[2], message.uid) then ask_removal(prefix, message, true) end
end
redis.call('ZREM', KEYS[4], ARGV[4])
if found.state then
  local state = found.state == 'wanted' and 'final' or found.state
  redis.call('HSET', KEYS[2], 'closed_at', string.format('%d', now_ms()), 'state', state)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return 'ok'
