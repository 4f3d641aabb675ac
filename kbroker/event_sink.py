"""Where a watcher puts what it saw: the interface, and a plain queue behind it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from kbroker.event import PodEvent
from kbroker.result_stream import WatchProgress


@runtime_checkable
class EventSink(Protocol):
    """Takes pod events in order, and remembers the picture of what exists."""

    def put(self, event: PodEvent, *, gone: bool = False) -> None:
        """Take one event; `gone`: the pod does not exist any more."""

    async def flush(self) -> None:
        """Carry out what was put."""

    async def picture(self) -> dict[str, PodEvent]:
        """The pods that exist: name → last event."""

    async def progress(self) -> WatchProgress:
        """How far the picture reaches."""

    async def relisting(self, new_generation: bool) -> None:
        """A list begins."""

    async def synced(self, version: int) -> None:
        """A list of this version has been put whole."""

    async def checkpoint(self, version: int) -> None:
        """Everything up to this version has been put."""


class QueueSink:
    """Anything with `put` as a sink: it gets each event once, the picture is kept in memory.

    Args:
        queue: gets the pod events.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._pods: dict[str, PodEvent] = {}

    def put(self, event: PodEvent, *, gone: bool = False) -> None:
        """Pass the event on, unless it has been."""
        known = self._pods.get(event.pod)
        if gone:
            self._pods.pop(event.pod, None)
        else:
            self._pods[event.pod] = event
        if known is not None and known.uid == event.uid:
            same_version = known.resource_version == event.resource_version
            if known == event or same_version or (known.final and event.final):
                return
        self._queue.put(event)

    async def flush(self) -> None:
        """Nothing is held back."""

    async def picture(self) -> dict[str, PodEvent]:
        """The pods that exist: name → last event."""
        return dict(self._pods)

    async def progress(self) -> WatchProgress:
        """A new process knows nothing."""
        return WatchProgress()

    async def relisting(self, new_generation: bool) -> None:
        """What is known stays known; versions of another generation say nothing."""
        if new_generation:
            pods = self._pods.items()
            self._pods = {name: event.changed(resource_version=0) for name, event in pods}

    async def synced(self, version: int) -> None:
        """A queue keeps no checkpoint."""

    async def checkpoint(self, version: int) -> None:
        """A queue keeps no checkpoint."""
