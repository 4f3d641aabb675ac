"""Every Redis key of kbroker: name, type, owner, life time, and how to look at it.

All names stand behind one configurable prefix with a hash tag, `{kbroker}:`, so
that they share a slot and scripts work on a Redis cluster. Values are JSON or
plain fields. `C` is a cluster's name, `N` a namespace, `P` a priority, `E` an
executor id, `D` a launch's digest; `$p` stands for the prefix.

launch.C.P   stream, one entry per launch; executor -> launchers (group
             "launchers"); an entry leaves when its outcome is recorded.
             XLEN '$plaunch.default.normal'; XPENDING '$plaunch.default.normal' launchers
delete.C     stream, one entry per pod to remove; scripts -> launchers; likewise.
             XLEN '$pdelete.default'
secrets.C    stream, one entry per Secret to create or replace, by name; executor ->
             launchers that have its file; likewise.
             XLEN '$psecrets.default'
logs.C       list of requests for the end of a pod's log (JSON), the oldest first; whoever
             wants to see one -> launchers; a request is taken once, at its end by who
             asked, and the whole list is gone a minute after the last one.
             LLEN '$plogs.default'
reply:R      list of one answer (JSON) to the request that gave the random name R; launcher
             -> who asked; with PX, ten seconds.
             LLEN '$preply:R'
parked.C     sorted set, item -> when it is due (ms): launches that wait for quota
             or Retry-After, deletions that wait until the name need not be held,
             Secrets whose file or permission is missing, launches whose pod waits
             for the Secret with its workload.
             Draining re-scores an item, only its outcome removes it.
             ZRANGE '$pparked.default' 0 -1 WITHSCORES
parked.C.messages
             hash, item -> its message (JSON); lives and goes with the sorted set.
             HLEN '$pparked.default.messages'
results:E    stream of pod events for the tasks of executor E, its only reader;
             entries are deleted when done, never trimmed; goes with the executor, or
             `watcher.orphan_after` after that fell silent.
             XREVRANGE '$presults:E' + - COUNT 10
task:D       hash, the launch record: state (wanted, withdrawn, final), attempt,
             owner and its lease's token, entry, create_before, pod, uid, last
             event, times (ms by Redis' clock). No TTL while wanted, `record_ttl` afterwards.
             HGETALL '$ptask:D'
tasks        sorted set, D of every wanted launch -> when it was published (ms).
             ZRANGE '$ptasks' 0 -1
executors    sorted set, executor id -> when it last renewed its lease (ms).
             ZRANGE '$pexecutors' 0 -1 WITHSCORES
pods:C:N     hash, pod name -> last event (JSON): the leading watcher's picture of
             what exists.
             HGETALL '$ppods:default:default'
watch:C:N    hash, the leading watcher's progress: checkpoint (resource version),
             generation, listed, listing_at, synced_at, since, progress (ms), leader.
             HGETALL '$pwatch:default:default'
lease:C:N    string with PX, the leading watcher's random token.
             PTTL '$please:default:default'
executor:E   string with PX, the executor's random token.
             PTTL '$pexecutor:E'
pace:C       hash, what all launchers of one API server obey: not_before (ms), and once
             it complained the rate (creates/s) as it was used last, the curve along
             which it grows (since, start, peak, recovery; turn names it), complained
             and judged (ms), what was done and refused since window and
             window_before, the next slots. Gone two minutes after it was last used.
             HGETALL '$ppace:default'
full:C       sorted set, namespace without room -> when the next launch looks (ms).
             ZRANGE '$pfull:default' 0 -1 WITHSCORES
full:C:N     hash, why there is no room, since when (ms), step (how many launches are
             let out next), out and found (how many were, and found room). Gone when
             there is room for all, or ten minutes after the last look.
             HGETALL '$pfull:default:default'
full:C:N:launches
             sorted set, parked launch that waits for room -> since when, or since it last
             looked (ms); likewise.
             ZRANGE '$pfull:default:default:launches' 0 -1
dead         stream, newest 10,000 messages that could not be processed, with the
             reason.
             XREVRANGE '$pdead' + - COUNT 10
"""

from __future__ import annotations

from dataclasses import dataclass

LAUNCHERS_GROUP = "launchers"


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Full names of the keys behind one prefix."""

    prefix: str = "{kbroker}:"

    def launch_queue(self, cluster: str, priority: str) -> str:
        """Stream of launches."""
        return f"{self.prefix}launch.{cluster}.{priority}"

    def delete_queue(self, cluster: str) -> str:
        """Stream of deletions."""
        return f"{self.prefix}delete.{cluster}"

    def secrets_queue(self, cluster: str) -> str:
        """Stream of Secrets to create or replace."""
        return f"{self.prefix}secrets.{cluster}"

    def log_queue(self, cluster: str) -> str:
        """List of requests for logs."""
        return f"{self.prefix}logs.{cluster}"

    def reply(self, name: str) -> str:
        """List: the answer to the request that gave this name."""
        return f"{self.prefix}reply:{name}"

    def parked(self, cluster: str) -> str:
        """Sorted set of items that wait, by due time."""
        return f"{self.prefix}parked.{cluster}"

    def parked_messages(self, cluster: str) -> str:
        """Hash of the waiting items' messages."""
        return f"{self.prefix}parked.{cluster}.messages"

    def results(self, executor_id: str) -> str:
        """Stream of pod events for one executor."""
        return f"{self.prefix}results:{executor_id}"

    def task(self, digest: str) -> str:
        """Hash: the launch record of one launch."""
        return f"{self.prefix}task:{digest}"

    @property
    def tasks(self) -> str:
        """Sorted set of the wanted launches."""
        return f"{self.prefix}tasks"

    @property
    def executors(self) -> str:
        """Sorted set of the executors by last renewal."""
        return f"{self.prefix}executors"

    def pods(self, cluster: str, namespace: str) -> str:
        """Hash: the picture of existing pods."""
        return f"{self.prefix}pods:{cluster}:{namespace}"

    def watch(self, cluster: str, namespace: str) -> str:
        """Hash: the leading watcher's progress."""
        return f"{self.prefix}watch:{cluster}:{namespace}"

    def lease(self, cluster: str, namespace: str) -> str:
        """String: the leading watcher's token."""
        return f"{self.prefix}lease:{cluster}:{namespace}"

    def executor(self, executor_id: str) -> str:
        """String: an executor's token."""
        return f"{self.prefix}executor:{executor_id}"

    def pace(self, cluster: str) -> str:
        """Hash: the shared pace towards one API server."""
        return f"{self.prefix}pace:{cluster}"

    def full(self, cluster: str) -> str:
        """Sorted set of the namespaces without room."""
        return f"{self.prefix}full:{cluster}"

    def full_namespace(self, cluster: str, namespace: str) -> str:
        """Hash: a namespace without room."""
        return f"{self.full(cluster)}:{namespace}"

    def full_launches(self, cluster: str, namespace: str) -> str:
        """Sorted set of the launches that wait for room in a namespace."""
        return f"{self.full_namespace(cluster, namespace)}:launches"

    @property
    def dead(self) -> str:
        """Stream of messages that could not be processed."""
        return f"{self.prefix}dead"
