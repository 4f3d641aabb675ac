"""An event loop in a thread of its own, for cases that are written one step after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """Runs coroutines for callers that have no loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, step: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
        """The coroutine's result."""
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(seconds)

    def start(self, duty: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let a coroutine run on; to be ended with `cancel`."""

        async def begin() -> asyncio.Task[None]:
            return asyncio.ensure_future(duty)

        return self.run(begin())

    def cancel(self, task: asyncio.Task[None]) -> None:
        """End what `start` began; what had ended it before does not matter any more."""

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.run(end())

    def close(self) -> None:
        """End what still runs, such as a proxy's connections, and the thread."""

        async def end() -> None:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
