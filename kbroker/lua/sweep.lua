-- Ask a launcher to delete a finished pod whose executor is gone for good.
-- KEYS watcher lease, record
-- ARGV prefix, token, executor that launched it ('' if not known), deployment, cluster, namespace,
--      pod, uid, reason
if not holds(KEYS[1], ARGV[2]) then return 'lease' end
local found = record(KEYS[2])
local owner = found.owner or ARGV[3]
if owner == '' then return 'unknown' end
if redis.call('EXISTS', ARGV[1] .. 'executor:' .. owner) == 1 then return 'owned' end
ask_removal(ARGV[1], {
  deployment = ARGV[4], cluster = ARGV[5], namespace = ARGV[6], pod = ARGV[7], uid = ARGV[8],
  removal = 'delete', not_before = found.create_before, reason = ARGV[9],
}, true)
return 'asked'
