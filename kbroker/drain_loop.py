"""Looks for parked messages that are due, often while there are some, seldom else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from kbroker.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

# Seconds between two looks of a launcher that knows of nothing parked: others may have
# parked something and died, and scripts park removals.
_IDLE_INTERVAL = 2.0


class Drainer(Protocol):
    """See `Launcher`."""

    @property
    def parked_until(self) -> float:
        """Monotonic seconds at which the last known parked message is due."""

    async def drain(self) -> int:
        """Work on what is due."""


async def drain_loop(
    launcher: Drainer,
    interval: float,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Drain until cancelled; `interval` is in seconds."""
    away = False
    while True:
        found = 0
        try:
            found = await launcher.drain()
            away = False
        except BrokerUnavailableError as error:
            if not away:
                log.warning("parked messages wait: %s", error, extra={"action": "redis-away"})
            away = True
        except Exception:
            # What was drained falls due again; a loop that ended here would park it for ever.
            log.exception("draining failed", extra={"action": "unexpected"})
        if found:
            continue  # what was done may let out what waited for it
        busy = monotonic() < launcher.parked_until + _IDLE_INTERVAL
        await sleep(interval if busy else max(interval, _IDLE_INTERVAL))
