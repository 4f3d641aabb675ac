"""A pool of Redis connections with one at hand: for who asks Redis all the time."""

from __future__ import annotations

import os
from typing import Any

import redis
from redis import exceptions


class SparePool(redis.ConnectionPool):
    """The last connection that was given back is the next to be lent, without bookkeeping.

    A pool's locks, events and counters cost more than to talk to Redis. To the pool, the spare
    connection is in use all the while.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._spare: list[Any] = []  # one, or none: threads may pop and append at any time
        super().__init__(*args, **options)

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Lend a connection that stands; the pool itself mends one that does not."""
        try:
            connection = self._spare.pop()
        except IndexError:
            return super().get_connection(*args, **options)
        if _stands(connection):
            return connection
        super().release(connection)
        return super().get_connection(*args, **options)

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        if self._spare or connection._sock is None or connection.should_reconnect():
            super().release(connection)
        else:
            self._spare.append(connection)


def _stands(connection: Any) -> bool:
    """Whether it is this process's, nobody closed it, and nothing unread is left."""
    if connection.pid != os.getpid() or connection._sock is None:
        return False
    try:
        return not connection.can_read()
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
        return False
