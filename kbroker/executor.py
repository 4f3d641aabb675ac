"""The executor: what a scheduler talks to.

It keeps what is wanted in memory, publishes it, and learns what became of it
from its result stream. It never talks to Kubernetes. While Redis is away its
buffer waits, and every call returns within `broker.scheduler_timeout`.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from kbroker.departures import Departures
from kbroker.errors import BrokerUnavailableError, LeaseLostError
from kbroker.event import Outcome, PodEvent
from kbroker.event_buffer import QUEUED, EventBuffer, State
from kbroker.event_intake import EventIntake, Hooks, Observe
from kbroker.kube_config import KubeConfig
from kbroker.kube_scheduler import AirflowKubernetesScheduler, Job
from kbroker.launch_registry import LaunchRegistry
from kbroker.launch_reply import Published, Refused
from kbroker.lease import LeaseState
from kbroker.message import LaunchMessage, LaunchRequest
from kbroker.publish_queue import PublishQueue
from kbroker.reconciliation import Reconciliation
from kbroker.redis_steps import RETRY_AFTER, RedisSteps
from kbroker.renewal import Renew
from kbroker.result_stream import Result
from kbroker.secret_requests import SecretRequests
from kbroker.task import TaskKey
from kbroker.task_state import PUBLISHED, Phase
from kbroker.tracked import Tracked, track
from kbroker.unclaimed import Unclaimed

log = logging.getLogger(__name__)


class KubernetesExecutor:
    """Runs commands as Kubernetes pods through the broker.

    Args:
        config: the configuration; read from the environment by default.
        redis: a client to use instead of connecting to `broker.url`.
        renew: asked for a newer command when one expired, or is launched again; by default
            a launch fails with its command.
        observe: told every event that is news of a key's newest launch, before what follows
            from it.
        clock: seconds since the epoch.
        monotonic: seconds that never jump.

    Attributes:
        event_buffer: task key → (state, info) that `get_event_buffer` has not handed
            out yet. States are "queued", "running", "success" and "failed"; the info
            is the launch id, for the last two an `Outcome`.
        running: keys of the tasks that were published and are not final.
        parallelism: how many tasks may run at once; 0 for no limit.
    """

    def __init__(
        self,
        config: KubeConfig | None = None,
        *,
        redis: Any = None,
        renew: Renew | None = None,
        observe: Observe | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or KubeConfig.load()
        self.executor_id = self.config.core.executor_id or (
            f"{socket.gethostname()}-{secrets.token_hex(3)}"
        )
        self.parallelism = self.config.core.parallelism
        self._clock = clock
        self._monotonic = monotonic
        results: SimpleQueue[Result] = SimpleQueue()
        self._launches = LaunchRegistry()
        self._ready = PublishQueue()
        self._lease_due = 0.0
        self.scheduler = AirflowKubernetesScheduler(
            self.config,
            results,
            self.executor_id,
            own_tasks=self._launches.keys,
            own_launch=self._launches.named,
            redis=redis,
        )
        self._redis = RedisSteps(self.scheduler.patience, monotonic)
        self._secrets = SecretRequests(self.config, self.scheduler)
        self._departures = Departures(self.scheduler, monotonic)
        self._told = EventBuffer(self._departures.over)
        self._unclaimed = Unclaimed(self.scheduler, monotonic)
        self._intake = EventIntake(
            self.scheduler,
            results,
            self._launches,
            self._ready,
            self._told,
            self._departures,
            self._unclaimed,
            change_state=self._change_state,
            hooks=Hooks(renew, observe),
            clock=clock,
        )
        self._reconciliation = Reconciliation(
            self, self.scheduler, self._launches, self._departures, monotonic
        )

    # Life.

    def start(self) -> None:
        """Take this executor id's lease; waits for one life time if it seems taken.

        Raises:
            BrokerUnavailableError: Redis is away.
            LeaseLostError: another process uses this executor id.
        """
        deadline = self._monotonic() + self.config.core.executor_lease + 1
        while not self.scheduler.lease.acquire():
            if self._monotonic() > deadline:
                raise LeaseLostError(
                    f"executor id {self.executor_id!r} is in use by another process; "
                    "set core.executor_id to another one, or end that process"
                )
            time.sleep(0.2)
        self._keep_lease()
        self._redis.run(self._inject_secrets)

    def end(self) -> bool:
        """Leave: hand over what is still running to whoever adopts it.

        With nothing running, the result stream is removed. Returns whether everything that
        was handed out has been let go of.
        """
        told = True
        try:
            while self._departures.revoking and self._departures.withdraw():
                pass
            self._finish()
            self.scheduler.leave(remove_stream=not len(self._launches))
        except BrokerUnavailableError as error:
            log.warning("left without saying goodbye: %s", error, extra={"action": "end"})
            told = False
        self.scheduler.close()
        return told and not self._told.holds

    def terminate(self) -> None:
        """Revoke everything, then leave."""
        for tracked in self._launches:
            self._revoke(tracked, "the executor was terminated")
        self._redis.run(self._withdraw)
        self.end()

    # What a scheduler asks for.

    def execute_async(
        self,
        key: TaskKey,
        command: Sequence[str],
        queue: str | None = None,
        executor_config: Mapping[str, Any] | None = None,
        *,
        launch_id: str | None = None,
        expires_at: float | None = None,
        workload: str | None = None,
    ) -> str:
        """Want this command to run for this task; it is published by `heartbeat`.

        Args:
            key: the task try.
            command: argv, a list of strings.
            queue: one of `broker.priorities`; None, or any other, is the default one.
            executor_config: see `KubernetesExecutorConfig.from_dict`.
            launch_id: names this queueing of the try; a new uuid4 by default.
            expires_at: seconds since the epoch after which the command is not worth
                launching; at most, and by default, `core.launch_timeout` from now.
            workload: what the command finds in `workload_file.WORKLOAD_FILE`; it travels in a
                Secret of the pod's own instead of on the command line.

        Returns:
            The launch id.

        Raises:
            TaskError: the key, command, launch id or workload is not usable.
            ExecutorConfigError: the executor config is not usable.
        """
        request = LaunchRequest(
            key,
            command,
            launch_id or str(uuid.uuid4()),
            queue,
            executor_config,
            expires_at,
            workload=workload,
        )
        tracked = track(request, self.config, self.executor_id, self._clock())
        if self._launches.get(tracked.attempt.launch) is None:
            self._add(tracked)
            self._ready.add(tracked)
            self._secrets.needed(tracked)
        return request.launch_id

    def adopt(self, launches: Iterable[LaunchRequest]) -> list[LaunchRequest]:
        """Take over launches that another executor, or this one before a restart, published.

        Returns:
            Those that are not ours to run: owned by a living executor, or withdrawn.

        Raises:
            TaskError, ExecutorConfigError: a request is not usable.
        """
        named = []
        for request in launches:
            tracked = track(request, self.config, self.executor_id, self._clock())
            present = self._launches.get(tracked.attempt.launch)
            if present is None:
                tracked.phase = Phase.RUNNING if request.started else Phase.PUBLISHED
                tracked.attempt_known = False
                self._add(tracked)
                self.running.add(tracked.key)
                tracked.entries = self._unclaimed.claim(tracked.attempt.launch)
                present = tracked
            named.append((request, present))
        mine = [tracked for _, tracked in named]
        self._redis.run(lambda: self._reconciliation.look_at(mine))
        return [
            request
            for request, tracked in named
            if self._launches.get(tracked.attempt.launch) is None
        ]

    def clear_not_launched_queued_tasks(self) -> int:
        """Look now for launches whose message was lost; returns how many are published again."""
        waiting = [t for t in self._launches if t.phase in (Phase.PUBLISHED, Phase.WAITING)]
        before = len(self._ready)
        self._redis.run(lambda: self._reconciliation.look_at(waiting))
        return len(self._ready) - before

    def revoke(self, key: TaskKey, reason: str = "revoked by the scheduler") -> bool:
        """Stop wanting a task: nothing more is created for it, its pods are removed.

        That goes for every launch of the key. No event follows. Returns whether the task was
        known and not final.
        """
        return self.revoke_all([key], reason) == 1

    def revoke_all(self, keys: Iterable[TaskKey], reason: str = "revoked by the scheduler") -> int:
        """The same for many tasks: `core.publish_batch` now, the rest with the next heartbeats.

        Returns how many were known and not final.
        """
        wanted = [t for k in keys for t in self._launches.all_of(k) if t.phase is not Phase.DONE]
        known = sum(tracked.newest for tracked in wanted)
        for tracked in wanted:
            self._revoke(tracked, reason)
        self._redis.run_briefly(self._withdraw)
        return known

    def get_event_buffer(
        self, dag_ids: Collection[str] | None = None, *, keep_pods: bool = False
    ) -> dict[TaskKey, State]:
        """Hand out and clear the event buffer, of all DAGs or of these.

        The pods of the final states handed out may go at the next `sync`; with `keep_pods`
        each stays until `let_go`.
        """
        return self._told.hand_out(dag_ids, keep_pods=keep_pods)

    def let_go(self, key: TaskKey) -> None:
        """The pod of a final state that was handed out with `keep_pods` may go."""
        self._told.let_go(key)

    @property
    def event_buffer(self) -> dict[TaskKey, State]:
        """See `KubernetesExecutor`."""
        return self._told.states

    @property
    def running(self) -> set[TaskKey]:
        """See `KubernetesExecutor`."""
        return self._told.running

    @property
    def queued_tasks(self) -> dict[TaskKey, LaunchMessage]:
        """Tasks that wait in this process to be published."""
        return self._ready.new(self.running)

    def not_launched(self) -> list[TaskKey]:
        """Tasks of which no pod is known yet."""
        early = (Phase.BUFFERED, Phase.PUBLISHED, Phase.WAITING)
        return [t.key for t in self._launches if t.phase in early and t.newest]

    def waiting(self, key: TaskKey) -> str | None:
        """Why a task has not started, in words; None when it has, or is unknown."""
        tracked = self._launches.newest(key)
        if tracked is None:
            return None
        if self._redis.away and tracked.phase is not Phase.RUNNING:
            return "Redis does not answer"
        full = self.parallelism and len(self.running) >= self.parallelism
        if full and tracked.phase is Phase.BUFFERED:
            return f"all {self.parallelism} slots are taken"
        return tracked.waiting

    # The scheduler's loop.

    def heartbeat(self) -> None:
        """One turn of the loop: publish what waits, take in what happened.

        It waits for Redis no longer than `broker.scheduler_timeout` + 0.25 seconds in all.

        Raises:
            LeaseLostError: another process uses this executor id.
        """
        self._redis.turn((self._withdraw, self._inject_secrets, self._publish, *self._listening))

    def sync(self) -> None:
        """Take in a bounded batch of events, and let pods go whose end was handed out.

        Raises:
            LeaseLostError: another process uses this executor id.
        """
        self._redis.turn(self._listening)

    @property
    def _listening(self) -> tuple[Callable[[], None], ...]:
        return (
            self._keep_lease,
            self._finish,
            self._intake.turn,
            self._reconciliation.turn,
            self._unclaimed.turn,
        )

    def _keep_lease(self) -> None:
        if self._monotonic() < self._lease_due:
            return
        state = self.scheduler.renew()
        if state is LeaseState.MISSING and self.scheduler.lease.acquire():
            # Redis was lost, or we were silent for too long: believe nothing.
            log.warning("the executor's lease was lost and taken again", extra={"action": "lease"})
            self.scheduler.rewind()
            self._secrets.again()
            self._reconciliation.all_soon()
            state = self.scheduler.renew()
        if state is not LeaseState.HELD:
            raise LeaseLostError(f"another process holds executor id {self.executor_id!r}")
        self._lease_due = self._monotonic() + self.config.core.executor_lease / 3

    def lease_missing(self) -> None:
        """A script found that the lease is not ours: look at it at the next turn."""
        self._lease_due = 0.0

    # Publishing.

    def _inject_secrets(self) -> None:
        """Ask the launchers, by name, for the Secrets of the configured service account keys."""
        self._secrets.publish()

    def _publish(self) -> None:
        if not self._ready:
            return
        slots = self.parallelism - len(self.running) if self.parallelism else None
        batch = self._ready.batch(
            self.config.core.publish_batch, slots, self.running, self._monotonic()
        )
        replies = self.scheduler.publish([Job(t.message, t.priority) for t in batch])
        for tracked, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Published) or reply.why == "waiting":
                self._published(tracked)
            else:
                self._not_published(tracked, reply)

    def _published(self, tracked: Tracked) -> None:
        self._ready.discard(tracked)
        tracked.phase = PUBLISHED
        tracked.attempt_known = True
        first = tracked.published_at is None
        tracked.published_at = self._clock()
        if tracked.newest:
            self.running.add(tracked.key)
            if first:
                self._change_state(tracked.key, QUEUED, tracked.launch_id)

    def _not_published(self, tracked: Tracked, reply: Refused) -> None:
        if reply.why == "lease":
            self.lease_missing()
        elif reply.why == "window":
            tracked.not_before = self._monotonic() + RETRY_AFTER / 2
        elif reply.why == "owner":
            self.drop(tracked, "another executor owns it")
        else:
            # Its record knows more than we do: read it instead.
            self._published(tracked)
            self._reconciliation.soon(tracked)

    def publish_again(self, tracked: Tracked) -> None:
        """Its message is lost: publish the same attempt again."""
        log.info(
            "publishing %s again: its message is lost", tracked.key, extra={"action": "republish"}
        )
        tracked.phase = Phase.BUFFERED
        self._ready.add(tracked)

    # Events.

    def take(self, tracked: Tracked, event: PodEvent) -> None:
        """Apply one event of a launch, as the state machine says."""
        self._intake.take(tracked, event)

    def _change_state(self, key: TaskKey, state: str, info: str | Outcome) -> None:
        """Put a state into the event buffer; a final one frees the task's slot."""
        self._told.put(key, state, info)

    def _finish(self) -> None:
        finished = self._departures.finish()
        if finished is None:
            self.lease_missing()
            return
        for tracked in finished:
            self._launches.remove(tracked)

    # Withdrawing.

    def _revoke(self, tracked: Tracked, reason: str) -> None:
        self._departures.revoked(tracked, reason)
        self.drop(tracked, reason)

    def _withdraw(self) -> None:
        if not self._departures.withdraw():
            self.lease_missing()

    def drop(self, tracked: Tracked, reason: str) -> None:
        """Forget a launch without an event."""
        log.info("%s: dropped: %s", tracked.key, reason, extra={"action": "drop"})
        newest = tracked.newest
        self._ready.discard(tracked)
        self._launches.remove(tracked)
        self._unclaimed.add(tracked.attempt.launch, *tracked.entries)
        if newest:
            self._told.forget(tracked.key)

    # Tracking.

    def _add(self, tracked: Tracked) -> None:
        older = self._launches.add(tracked)
        if older is None:
            return
        # From now on the older launch speaks for nobody; it still runs to its end.
        if self._told.forget(tracked.key) is not None:
            self._departures.over(older)
