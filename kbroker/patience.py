"""How long a Redis client may wait: for each answer, and for a whole row of calls together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# The least that a socket is given: what has arrived already is still read.
_LEAST = 0.001


class Patience:
    """The time left for what a client is asked.

    Args:
        limit: seconds that one wait takes at most.
        monotonic: seconds that never jump.
    """

    def __init__(self, limit: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._monotonic = monotonic
        self._until: float | None = None

    @contextmanager
    def together(self, seconds: float) -> Iterator[None]:
        """All waits within the block, those of connecting too, end after so many seconds."""
        before = self._until
        self._until = self._monotonic() + seconds
        try:
            yield
        finally:
            self._until = before

    def left(self) -> float:
        """Seconds that a wait that begins now may take."""
        if self._until is None:
            return self.limit
        return max(_LEAST, min(self.limit, self._until - self._monotonic()))


class Patient:
    """What a connection class of redis-py becomes when it has patience; see `patient`."""

    _patience: Patience
    _sock: Any

    def __init__(self, *, patience: Patience, **options: Any) -> None:
        self._patience = patience
        super().__init__(**options)

    @property
    def socket_connect_timeout(self) -> float:
        """Asked for each address that a name stands for."""
        return self._patience.left()

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, _seconds: float) -> None:
        """redis-py sets what it was told; the patience decides."""

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        """Send within the time left."""
        self._hurry()
        return super().send_packed_command(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read one reply within the time left."""
        self._hurry()
        return super().read_response(*args, **options)  # type: ignore[misc]

    def _hurry(self) -> None:
        if self._sock is not None:
            self._sock.settimeout(self._patience.left())


def patient(client: Any, patience: Patience) -> None:
    """Make every connection of a synchronous redis-py client have this patience."""
    pool = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Patient{kind.__name__}", (Patient, kind), {})
    pool.connection_kwargs["patience"] = patience
