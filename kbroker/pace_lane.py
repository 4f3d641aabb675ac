"""Those of one process who wait for their turn to ask the API server, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slots:
    """What a look at the shared schedule gave.

    Attributes:
        times: monotonic seconds at which somebody's turn comes, in order.
        again: seconds after which to look again where there are none.
    """

    times: tuple[float, ...] = ()
    again: float = 0.0


class PaceLane:
    """A queue for slots, which are taken a few at a time while somebody waits.

    Args:
        take: takes slots for up to so many; must not fail.
        monotonic: seconds that never jump.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        take: Callable[[int], Awaitable[Slots]],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._take = take
        self._monotonic = monotonic
        self._sleep = sleep
        self._waiting: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._pump: asyncio.Task[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    async def turn(self, ends: float) -> bool:
        """Wait for a slot; False if none comes before `ends` (monotonic seconds)."""
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((ends, place))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run())
        return await place

    async def close(self) -> None:
        """Send away who waits."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                slots = await self._take(len(self._waiting))
                for moment in slots.times:
                    await self._until(moment)
                    self._next()
                if not slots.times:
                    await self._until(self._monotonic() + slots.again)
        finally:
            self._pump = None
            while self._waiting:
                self._answer(self._waiting.popleft()[1], False)

    async def _until(self, moment: float) -> None:
        """Sleep, after those were sent away whose time is over by then."""
        late = [place for ends, place in self._waiting if ends <= moment]
        if late:
            self._waiting = deque(wait for wait in self._waiting if wait[0] > moment)
            for place in late:
                self._answer(place, False)
        seconds = moment - self._monotonic()
        if seconds > 0:
            await self._sleep(seconds)

    def _next(self) -> None:
        while self._waiting:
            _, place = self._waiting.popleft()
            if not place.done():
                self._answer(place, True)
                return

    @staticmethod
    def _answer(place: asyncio.Future[bool], answer: bool) -> None:
        if not place.done():
            place.set_result(answer)
