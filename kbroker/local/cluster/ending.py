"""When a pod ends: at its deadline, when it is deleted, or when its work is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

from kbroker.local.cluster.report import EVICTED
from kbroker.local.cluster.store import Object

_NEVER = float("inf")
_DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


class Ending:
    """The end of one pod.

    Args:
        began: when the kubelet saw the pod.
        tell: tells its processes to end; called once.
        kill: kills them, when they had their time.

    Attributes:
        reason: why it was ended; "" for a deletion or by itself.
        message: the reason in words.
    """

    def __init__(self, began: datetime, tell: Callable[[], None], kill: Callable[[], None]) -> None:
        self._began = began
        self._tell = tell
        self._kill = kill
        self._told = False
        self._kill_at = _NEVER  # by the event loop's clock
        self._changed = asyncio.Event()
        self.reason = ""
        self.message = ""

    def changed(self) -> None:
        """The pod was changed."""
        self._changed.set()

    def evict(self, message: str) -> None:
        """The node is short of something: the processes are killed, without grace."""
        self.reason, self.message = EVICTED, message
        self._told = True
        self._kill()

    def begin(self, grace: float) -> None:
        """The processes that are left end by themselves, or are killed after so many seconds."""
        self._told = True
        self._kill_at = min(self._kill_at, asyncio.get_running_loop().time() + grace)
        self._changed.set()

    async def watch(self, pod: Callable[[], Object]) -> None:
        """End the pod when it is time."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            moment = self._next(pod(), loop.time())
            if self._told and moment <= 0:
                self._kill()
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if moment == _NEVER else moment)

    def _next(self, pod: Object, now: float) -> float:
        """Tell the processes if they are to end; seconds until something is to be done."""
        deletion_grace = pod["metadata"].get("deletionGracePeriodSeconds")
        left = self._left(pod)
        if deletion_grace is not None:
            self._kill_at = min(self._kill_at, now + deletion_grace)
        elif left <= 0 and not self._told:
            self.reason, self.message = "DeadlineExceeded", _DEADLINE_MESSAGE
            self._kill_at = now + pod["spec"]["terminationGracePeriodSeconds"]
        if self._kill_at < _NEVER and not self._told:
            self._told = True
            self._tell()
        return self._kill_at - now if self._told else left

    def _left(self, pod: Object) -> float:
        """Seconds until the deadline."""
        deadline = pod["spec"].get("activeDeadlineSeconds")
        if deadline is None:
            return _NEVER
        return float(deadline) - (datetime.now(UTC) - self._began).total_seconds()
