-- The pace that all launchers of one API server share: what a process has done is counted, a
-- complaint is told, the next slots are taken.
-- KEYS pace
-- ARGV done, refused (since the process's last call); pause (ms) with a complaint, 0 for none;
--      longest pause (ms); lane whose slots are wanted or ''; how many; ms between two;
--      turn of the curve that these were reckoned by; ms after which a curve is forgotten
-- Reply: now, not_before; while something is limited also turn, complained, judged, since, start,
--      peak, recovery, counted_since, done, refused, busy, first slot (ms, '' for none), slots.
local WINDOW = 1500     -- what is counted lies this far back, and twice as far at most
local LATE = 50         -- a slot this long past may still be taken
local AHEAD = 1000      -- no slot is taken this long before its time
local BUSY = 1000       -- launches want slots, as far as was seen within this time
local KEEP = 120000
local at = now_ms()
local done, refused = tonumber(ARGV[1]), tonumber(ARGV[2])
local pause = math.min(tonumber(ARGV[3]), tonumber(ARGV[4]))
local lane = ARGV[5]
local pace = fields(KEYS[1], 'not_before', 'turn', 'complained', 'judged', 'since', 'start', 'peak',
  'recovery', 'window', 'done', 'refused', 'window_before', 'done_before', 'refused_before',
  'launching', 'next_create', 'next_remove')
local function number(name) return tonumber(pace[name] or 0) end
local function keep(name, value)
  pace[name] = string.format('%.3f', value):gsub('%.?0+$', '')
  redis.call('HSET', KEYS[1], name, pace[name])
end

if pace.turn and not pace.complained and at - number('since') >= tonumber(ARGV[9]) then
  redis.call('HDEL', KEYS[1], 'turn', 'since', 'start', 'peak', 'recovery', 'rate')
  pace.turn, pace.since = nil, nil
end
if done + refused > 0 then
  -- What is counted while a complaint waits for its judgement belongs before it.
  if at - number('window') >= WINDOW and not pace.complained then
    local follows = at - number('window') < 2 * WINDOW
    keep('window_before', follows and number('window') or at)
    keep('done_before', follows and number('done') or 0)
    keep('refused_before', follows and number('refused') or 0)
    keep('window', at)
    keep('done', done)
    keep('refused', refused)
  else
    keep('done', number('done') + done)
    keep('refused', number('refused') + refused)
  end
end
if pause > 0 then
  keep('not_before', math.max(number('not_before'), at + pause))
  if not pace.complained then keep('complained', at) end
end
if done + refused + pause > 0 then redis.call('PEXPIRE', KEYS[1], KEEP + math.ceil(pause)) end
if lane == '' and not pace.turn and not pace.complained then
  return {string.format('%d', at), pace.not_before or '0'}
end

local first, count = '', 0
if lane ~= '' and not pace.complained and at >= number('not_before')
    and (pace.turn or '0') == ARGV[8] then
  local slot = math.max(number('next_' .. lane), at - LATE)
  if slot <= at + AHEAD then
    first, count = string.format('%.3f', slot), tonumber(ARGV[6])
    keep('next_' .. lane, slot + count * tonumber(ARGV[7]))
    if lane == 'create' then keep('launching', at) end
    redis.call('HSET', KEYS[1], 'rate', string.format('%.1f', 1000 / tonumber(ARGV[7])))
    redis.call('PEXPIRE', KEYS[1], KEEP)
  end
end
local busy = at - number('launching') < BUSY
return {string.format('%d', at), pace.not_before or '0', pace.turn or '0', pace.complained or '0',
  pace.judged or '0', pace.since or '', pace.start or '0', pace.peak or '0', pace.recovery or '0',
  pace.window_before or tostring(at), string.format('%d', number('done_before') + number('done')),
  string.format('%d', number('refused_before') + number('refused')), busy and '1' or '0', first,
  tostring(count)}
