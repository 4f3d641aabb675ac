-- Remember why a pod must go and ask a launcher to stop it, exactly as it was judged.
-- KEYS record, watcher lease
-- ARGV prefix, token ('' from a launcher), uid, resource version, attempt,
--      verdict (JSON: cause, message), pod
if ARGV[2] ~= '' and not holds(KEYS[2], ARGV[2]) then return 'lease' end
local found = record(KEYS[1])
if not found.state then return 'unknown' end
if found.state ~= 'wanted' or found.final then return 'final' end
if found.attempt ~= tonumber(ARGV[5]) or found.uid ~= ARGV[3] then return 'stale' end
redis.call('HSET', KEYS[1], 'condemned', ARGV[6])
local verdict = cjson.decode(ARGV[6])
ask_removal(ARGV[1], {
  deployment = found.deployment, cluster = found.cluster, namespace = found.namespace,
  pod = ARGV[7], uid = ARGV[3], removal = 'stop', not_before = found.create_before, resource_version = ARGV[4],
  reason = verdict.message, cause = verdict.cause,
})
return 'applied'
