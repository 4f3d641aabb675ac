-- Permission to create one attempt's pod, dated. Absent record means no.
-- KEYS record
-- ARGV attempt, launcher, window (ms), expires at (ms) or ''
local found, at = record(KEYS[1], 'dead'), now_ms()
local function refuse(why)
  return {why, string.format('%d', found.create_before), string.format('%d', at)}
end
if not found.state then return refuse('absent') end
if found.state ~= 'wanted' then return refuse(found.state) end
if found.attempt ~= tonumber(ARGV[1]) then return refuse('attempt') end
if found.uid then return refuse('launched') end
if found.final then return refuse('final') end
if found.dead then return refuse('dead') end
if ARGV[4] ~= '' and at > tonumber(ARGV[4]) then return refuse('expired') end
local create_before = math.max(found.create_before, at + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'create_before', string.format('%d', create_before),
  'granted_at', string.format('%d', at), 'launcher', ARGV[2])
return {'ok', string.format('%d', create_before), string.format('%d', at)}
