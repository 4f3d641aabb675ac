-- The pace that all launchers of one API server share.
-- KEYS pace
-- ARGV pause (ms) that the API server asked for, 0 to only read; longest pause (ms)
local at = now_ms()
local not_before = tonumber(redis.call('HGET', KEYS[1], 'not_before') or 0)
local pause = math.min(tonumber(ARGV[1]), tonumber(ARGV[2]))
if pause > 0 and at + pause > not_before then
  not_before = at + pause
  redis.call('HSET', KEYS[1], 'not_before', string.format('%d', not_before))
  redis.call('PEXPIRE', KEYS[1], string.format('%d', pause + 60000))
end
return {string.format('%d', not_before), string.format('%d', at)}
