"""Signals that wait while something must not be interrupted half-way."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Within this context SIGINT and SIGTERM wait for `check`, or for its end.

    A child process is started in many steps; interrupted between them, nobody would
    know that it has to be ended.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> DeferredSignals:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.check()

    def check(self) -> None:
        """Do now what the signals that came mean outside: usually, raise."""
        while self._received:
            number = self._received.pop(0)
            handler = self._before[signal.Signals(number)]
            if callable(handler):
                handler(number, None)
            elif handler is signal.SIG_DFL:
                signal.signal(number, handler)
                os.kill(os.getpid(), number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(number)
