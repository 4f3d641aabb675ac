-- The end of every script: its body is the function `step`, run once for each call, in order.
-- KEYS those of each call
-- ARGV how many calls, how many arguments each has, then those of each call
-- Reply: what each call answered; then the first refusal, or ''. A call that Redis refuses ends
-- alone: the others are carried out, as in a pipeline.
local count, width = tonumber(ARGV[1]), tonumber(ARGV[2])
local each = #KEYS / count
local replies, refusal = {}, ''
for n = 0, count - 1 do
  local keys = {unpack(KEYS, n * each + 1, (n + 1) * each)}
  local args = {unpack(ARGV, 3 + n * width, 2 + (n + 1) * width)}
  local fine, reply = pcall(step, keys, args)
  if not fine then
    if refusal == '' then refusal = type(reply) == 'table' and reply.err or tostring(reply) end
    reply = false
  end
  -- A nil would end the list.
  replies[n + 1] = reply == nil and false or reply
end
return {replies, refusal}
