"""Launches of dead schedulers whose tasks have ended: nobody adopts them, so they end here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kbroker.abandoned import Abandoned
from kbroker.airflow.identity import is_callback, key_of
from kbroker.airflow.launches import Wanted
from kbroker.airflow.standing import WANTED_STATES, Row
from kbroker.airflow.supervision import Rows
from kbroker.errors import BrokerUnavailableError
from kbroker.left_behind import LeftBehind

log = logging.getLogger(__name__)


class Leftovers:
    """Looks for them now and then, some in each turn of the scheduler's loop.

    A task instance that is still wanted is left to Airflow, which has some scheduler adopt it.

    Args:
        left_behind: finds and ends launches.
        interval: seconds between two looks.
        grace: seconds that a pod which still runs has to leave by itself, and to keep its log.
        rows: reads the database.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        left_behind: LeftBehind,
        *,
        interval: float,
        grace: float,
        rows: Rows,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left_behind = left_behind
        self._interval = interval
        self._grace = grace
        self._rows = rows
        self._monotonic = monotonic
        self._next_look = monotonic() + interval
        # Launch id → since when nobody wants it.
        self._unwanted: dict[str, float] = {}

    def turn(self) -> None:
        """Look at some."""
        now = self._monotonic()
        if not self._left_behind.looking:
            if now < self._next_look:
                return
            self._next_look = now + self._interval
            self._left_behind.begin()
        try:
            found = self._left_behind.next()
            unwanted = self._nobodys(found, now)
            if unwanted:
                log.info("%d launches of dead schedulers are ended", len(unwanted))
                self._left_behind.end(unwanted, "its scheduler died, and its task has ended")
        except BrokerUnavailableError:
            return  # the executor itself has said so

    def _nobodys(self, found: list[Abandoned], now: float) -> list[Abandoned]:
        """Those whose task instance does not want them any more."""
        named = [_wanted(one) for one in found]
        rows = self._rows(named) if named else []
        if rows is None:
            return []
        ended = []
        for one, wanted, row in zip(found, named, rows, strict=True):
            if _still_wanted(wanted, row) or (is_callback(wanted.task_key) and not one.final):
                self._unwanted.pop(wanted.launch_id, None)
                continue
            since = self._unwanted.setdefault(wanted.launch_id, now)
            if one.final or now - since >= self._grace:
                self._unwanted.pop(wanted.launch_id)
                ended.append(one)
        return ended


def _wanted(one: Abandoned) -> Wanted:
    launch = one.attempt.launch
    return Wanted(key_of(launch.key), launch.key, launch.launch_id)


def _still_wanted(wanted: Wanted, row: Row | None) -> bool:
    if row is None or row.external_executor_id != wanted.launch_id:
        return False
    return row.state in WANTED_STATES or row.state == "restarting"
