"""Time that passes only when told: one clock for Redis, the executor, and an event loop."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


class Clock:
    """Seconds since the epoch, which are the monotonic ones too."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Let `time.time` and `time.sleep` go by this clock; fakeredis asks the former."""
        with mock.patch("time.time", self), mock.patch("time.sleep", self.advance):
            yield


class _IdleSelector(selectors.SelectSelector):
    """Never waits; says so when the loop wanted to."""

    idle: Callable[[], None]

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self.idle()
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a `Clock`: it runs until nothing is left to do at this moment."""

    def __init__(self, clock: Clock) -> None:
        selector = _IdleSelector()
        super().__init__(selector)
        selector.idle = self.stop
        self._clock = clock

    def time(self) -> float:
        return self._clock()

    def run_until_idle(self) -> None:
        """Run what can run now."""
        self.run_forever()

    def finish(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Run a step that waits for nobody; its result."""
        task = self.create_task(step)
        self.run_until_idle()
        assert task.done(), "it waits for something"
        return task.result()
