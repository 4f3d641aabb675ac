"""The pods that a watcher has in view: for judging those that wait and those without an owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kbroker.event import Cause, PodEvent, PodState


@dataclass(slots=True)
class Seen:
    """One existing pod.

    Attributes:
        event: its last event.
        executor: id of the executor that launched it; "" while it is not known.
        since: when it was first seen in this state for this cause, seconds since the epoch.
        condemned: cause and resource version that it was condemned for last.
        swept: when its removal was asked for, for want of an owner; 0 for never.
    """

    event: PodEvent
    executor: str
    since: float
    condemned: tuple[Cause, int] | None = None
    swept: float = 0.0


class PodTable:
    """Name → pod, for every pod that exists as far as the watch has told."""

    def __init__(self) -> None:
        self._pods: dict[str, Seen] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def last(self, pod: str, uid: str) -> PodEvent | None:
        """The last event of this pod; None if it was not seen."""
        seen = self._pods.get(pod)
        return seen.event if seen is not None and seen.event.uid == uid else None

    def note(self, event: PodEvent, executor: str, now: float) -> None:
        """A pod exists and is so; `now` is in seconds since the epoch."""
        seen = self._pods.get(event.pod)
        if seen is None or seen.event.uid != event.uid:
            self._pods[event.pod] = Seen(event, executor, now)
            return
        if (seen.event.state, seen.event.cause) != (event.state, event.cause):
            seen.since = now
        seen.event = event
        seen.executor = executor or seen.executor

    def drop(self, pod: str) -> None:
        """A pod does not exist any more."""
        self._pods.pop(pod, None)

    def pending(self) -> Iterable[Seen]:
        """Those that have not started."""
        return [seen for seen in self._pods.values() if seen.event.state is PodState.PENDING]

    def started(self) -> Iterable[Seen]:
        """Those that run or have finished."""
        return [seen for seen in self._pods.values() if seen.event.state is not PodState.PENDING]
