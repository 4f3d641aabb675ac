"""Launches that Airflow's database wants no more are stopped, whoever forgot to say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from kbroker.airflow.launches import Wanted, WantedLaunches
from kbroker.airflow.standing import Row, Standing, standing, stop_now

# Looked up in one turn of the scheduler's loop.
_AT_ONCE = 500

Rows = Callable[[Sequence[Wanted]], "list[Row | None] | None"]


class Stop(Protocol):
    """Carries out what supervision found."""

    def __call__(self, wanted: Wanted, reason: str, *, awaited: bool) -> None:
        """Stop a launch; say that it has ended if it is awaited."""


class Supervision:
    """Compares launches with the database, some in each turn.

    Airflow tells an executor little of a task that is cleared or marked: a running one finds
    out by itself, one that has not started would start for nothing.

    Args:
        launches: what is wanted so far.
        job_id: of this scheduler.
        interval: seconds between two looks at a launch.
        grace: seconds that a running container has to notice by itself.
        stop: what to do about an unwanted launch.
        let_go: what to do about one that another scheduler has.
        rows: reads the database.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        launches: WantedLaunches,
        job_id: int | str | None,
        *,
        interval: float,
        grace: float,
        stop: Stop,
        let_go: Callable[[Wanted], None],
        rows: Rows,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launches = launches
        self._job_id = job_id
        self._interval = interval
        self._grace = grace
        self._stop = stop
        self._let_go = let_go
        self._rows = rows
        self._monotonic = monotonic
        self._next_round = 0.0
        self._round: list[Wanted] = []

    def turn(self) -> None:
        """Look at the next of them, at most 500."""
        now = self._monotonic()
        if not self._round and now >= self._next_round:
            self._next_round = now + self._interval
            self._round = [one for one in self._launches if one.task_instance is not None]
        batch, self._round = list(islice(self._round, _AT_ONCE)), self._round[_AT_ONCE:]
        if not batch:
            return
        rows = self._rows(batch)
        if rows is None:
            self._round = []
            return
        for wanted, row in zip(batch, rows, strict=True):
            if self._launches.of(wanted.task_key) is wanted:
                self._judge(wanted, standing(wanted, row, self._job_id), now)

    def _judge(self, wanted: Wanted, found: Standing, now: float) -> None:
        if found is Standing.WANTED:
            wanted.unwanted_since = None
        elif found is Standing.ELSEWHERE:
            self._let_go(wanted)
        elif wanted.unwanted_since is None:
            wanted.unwanted_since = now
        elif stop_now(wanted, wanted.unwanted_since, now, self._interval, self._grace):
            awaited = found is Standing.AWAITED
            self._stop(wanted, "Airflow's database wants it no more", awaited=awaited)
