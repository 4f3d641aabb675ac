"""Compare what an executor wants with what Redis and the picture of pods say, and repair."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

from kbroker.departures import Departures
from kbroker.errors import BrokerUnavailableError
from kbroker.event import Cause, PodEvent, PodState, Started, vanished
from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.launch_registry import LaunchRegistry
from kbroker.launch_reply import Adopted, Missing, Refused, evidence
from kbroker.task_state import Evidence, Phase, Repair, repair
from kbroker.tracked import Tracked

# A launch that could not be judged yet is looked at again after this many seconds.
AGAIN = 1.0


class Owner(Protocol):
    """What reconciliation may do to the executor."""

    def take(self, tracked: Tracked, event: PodEvent) -> None:
        """Apply an event."""

    def publish_again(self, tracked: Tracked) -> None:
        """Publish the same attempt again."""

    def drop(self, tracked: Tracked, reason: str) -> None:
        """Forget a launch without an event."""

    def lease_missing(self) -> None:
        """The lease is not ours."""


class Reconciliation:
    """The executor's doubts, worked off in bounded steps.

    Args:
        owner: the executor.
        scheduler: its broker side.
        launches: what it tracks.
        departures: what leaves it.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        owner: Owner,
        scheduler: AirflowKubernetesScheduler,
        launches: LaunchRegistry,
        departures: Departures,
        monotonic: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._scheduler = scheduler
        self._launches = launches
        self._departures = departures
        self._monotonic = monotonic
        self._settings = scheduler.config
        self._next_round = monotonic() + self._settings.core.reconcile_interval
        self._round: deque[Tracked] = deque()
        self._check_departures = False
        self._soon: list[Tracked] = []
        self._soon_at = 0.0

    def soon(self, tracked: Tracked) -> None:
        """Look at this launch at the next turn."""
        self._soon.append(tracked)

    def all_soon(self) -> None:
        """Redis may have lost everything: begin a round at the next turn."""
        self._departures.doubt_all()
        self._next_round = 0.0

    def turn(self) -> None:
        """One bounded step: launches in doubt, then the present round."""
        now = self._monotonic()
        if self._soon and now >= self._soon_at:
            self._soon_at = now + AGAIN
            doubtful, self._soon = self._soon, []
            try:
                self.look_at(doubtful)
            except BrokerUnavailableError:
                self._soon = [*doubtful, *self._soon]
                raise
        if now >= self._next_round:
            self._next_round = now + self._settings.core.reconcile_interval
            self._round = deque(self._launches)
            self._check_departures = True
        if self._check_departures:
            self._departures.check()
            self._check_departures = False
        if self._round:
            batch = list(islice(self._round, self._settings.core.event_batch))
            self.look_at(self._surprising(batch))
            for _ in batch:
                self._round.popleft()

    def look_at(self, launches: Iterable[Tracked]) -> None:
        """Look these up in one pipeline and repair what is wrong."""
        doubtful = self._open(launches)
        if not doubtful:
            return
        now = self._scheduler.now_ms()
        replies = self._scheduler.look_up(
            [
                (t.attempt, *t.place, t.last if t.uid else None, not t.attempt_known)
                for t in doubtful
            ]
        )
        for tracked, reply in zip(doubtful, replies, strict=True):
            self._judge(tracked, reply, now)

    def _surprising(self, launches: Iterable[Tracked]) -> list[Tracked]:
        """Those that do not stand as believed: nearly all do, and a glance tells."""
        found = self._open(launches)
        known = [t for t in found if t.attempt_known]
        fine = self._scheduler.glance([(t.attempt, *t.place, t.last_of_attempt) for t in known])
        believed = {id(t) for t, is_fine in zip(known, fine, strict=True) if is_fine}
        return [t for t in found if id(t) not in believed]

    def _open(self, launches: Iterable[Tracked]) -> list[Tracked]:
        """Those whose message or pod matters."""
        return [
            t
            for t in launches
            if t.phase not in (Phase.BUFFERED, Phase.DONE)
            and self._launches.get(t.attempt.launch) is t
        ]

    def _judge(self, tracked: Tracked, reply: Adopted | Missing | Refused, now: int) -> None:
        if isinstance(reply, Refused):
            if reply.why == "lease":
                self._owner.lease_missing()
                self.soon(tracked)
            else:
                self._owner.drop(tracked, f"executor {reply.detail} owns it")
            return
        if isinstance(reply, Adopted):
            if reply.record.state == "withdrawn":
                self._withdrawn(tracked, reply.record.event)
                return
            if reply.record.attempt < tracked.attempt.number:
                # Redis fell back to an older state, and lost our attempt's message.
                self._owner.publish_again(tracked)
                return
            if reply.record.attempt > tracked.attempt.number:
                tracked.become(reply.record.attempt)
                tracked.phase = Phase.PUBLISHED
            tracked.attempt_known = True
        self._repair(tracked, evidence(reply, now))

    def _withdrawn(self, tracked: Tracked, last: PodEvent | None) -> None:
        if last is None or last.cause is not Cause.CANCELLED:
            self._owner.drop(tracked, "it was withdrawn")
            return
        # The launch is cancelled, not one attempt: Redis may have fallen back to an older one.
        if last.attempt.number < tracked.attempt.number or (
            last.attempt == tracked.attempt and tracked.uid is not None
        ):
            last = last.changed(attempt=tracked.attempt, uid=tracked.uid)
        self._owner.take(tracked, last)

    def _repair(self, tracked: Tracked, seen: Evidence) -> None:
        window = int(self._settings.kubernetes.create_window * 1000)
        known = tracked.last
        action = repair(known, tracked.attempt_known, window, seen)
        last = seen.event or known
        if action is Repair.APPLY and seen.event is not None:
            self._owner.take(tracked, seen.event)
        elif action is Repair.PUBLISH and tracked.phase is Phase.RUNNING:
            self._owner.take(tracked, _nothing_left(tracked))
        elif action is Repair.PUBLISH:
            self._owner.publish_again(tracked)
        elif action is Repair.VANISHED and last is not None:
            self._owner.take(tracked, vanished(last, seen.checkpoint))
        elif action is Repair.DEAD:
            self._owner.take(tracked, _dead(tracked, last))
        elif not tracked.attempt_known:
            self.soon(tracked)


def _nothing_left(tracked: Tracked) -> PodEvent:
    """The failure of a launch that had started, and of which neither record nor pod is left."""
    why = "its pod is gone and nobody saw how it ended; it had started"
    return _failed(tracked, Started.YES, Cause.VANISHED, why)


def _dead(tracked: Tracked, last: PodEvent | None) -> PodEvent:
    if last is None:
        why = "its message could not be processed; see the dead stream"
        return _failed(tracked, Started.NEVER, Cause.DEAD, why)
    return last.changed(state=PodState.FAILED, started=Started.NEVER, cause=Cause.DEAD)


def _failed(tracked: Tracked, started: Started, cause: Cause, message: str) -> PodEvent:
    cluster, namespace = tracked.place
    return PodEvent(
        attempt=tracked.attempt,
        cluster=cluster,
        namespace=namespace,
        pod="",
        state=PodState.FAILED,
        started=started,
        cause=cause,
        message=message,
    )
