"""How many creates of one process may be under way at once.

Few at first, some more with every round of answers, up to the number of connections: an API
server that takes less than all launchers could send says so before they have sent it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

# At first, and after the API server had too much to do.
FIRST = 16
# So many more after each pod that was created.
_GROWTH = 0.25
# The same where answers take long (in seconds): there are few rounds in a second.
_FAR, _GROWTH_FAR = 0.1, 2.0


class Flight:
    """To be entered for the time of a request.

    Args:
        most: requests at once, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(min(FIRST, most))
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def allowed(self) -> int:
        """Requests at once, now."""
        return int(self._allowed)

    async def __aenter__(self) -> None:
        if self._under_way < self.allowed and not self._waiting:
            self._under_way += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def grow(self, seconds: float) -> None:
        """A pod was created, and the answer took so long."""
        more = _GROWTH if seconds < _FAR else _GROWTH_FAR
        self._allowed = min(self._most, self._allowed + more)

    def shrink(self) -> None:
        """The API server had too much to do."""
        self._allowed = float(min(FIRST, self._most))

    def _leave(self) -> None:
        self._under_way -= 1
        while self._waiting and self._under_way < self.allowed:
            place = self._waiting.popleft()
            if not place.done():
                self._under_way += 1
                place.set_result(None)
