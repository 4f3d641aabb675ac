"""Keeps what a process works on from being taken for abandoned."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from kbroker.errors import BrokerUnavailableError

log = logging.getLogger(__name__)


class Holder(Protocol):
    """A consumer; see `StreamConsumer`."""

    @property
    def over(self) -> bool:
        """Whether it is closed and nothing that it handed out is unfinished."""

    @property
    def key(self) -> str:
        """Full name of its stream."""

    def renew(self) -> None:
        """Say that everything handed out here is being worked on."""


class Renewer:
    """One thread that speaks for every entry in this process's hands.

    Args:
        interval: seconds between two renewals.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._holders: list[Holder] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, holder: Holder) -> None:
        """Renew for this consumer, too, until it is over."""
        with self._lock:
            self._holders = [known for known in self._holders if not known.over] + [holder]
            if self._thread is None:
                self._stopped.clear()
                self._thread = threading.Thread(target=self._run, daemon=True, name="renewer")
                self._thread.start()

    def stop(self) -> None:
        """End the thread; `watch` starts it again."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopped.set()
        if thread is not None:
            thread.join()

    def renew(self, key: str) -> None:
        """Renew now what this process holds of one stream, through whichever consumer.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        for holder in list(self._holders):
            if holder.key == key:
                holder.renew()

    def _run(self) -> None:
        away = False
        while not self._stopped.wait(self._interval):
            error = self._renew_all()
            if error is not None and not away:
                log.warning("cannot renew entries: %s", error, extra={"action": "redis-away"})
            away = error is not None

    def _renew_all(self) -> BrokerUnavailableError | None:
        unavailable = None
        for holder in list(self._holders):
            try:
                holder.renew()
            except BrokerUnavailableError as error:
                unavailable = error
            except Exception:
                # A thread that ended here would let others take everything over.
                log.exception("cannot renew entries", extra={"action": "unexpected"})
        return unavailable
