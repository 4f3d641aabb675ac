"""Whether the API server takes ever longer to answer. Pure.

Only what is long by both measures counts: by the API server's own objective, a second for a
change of one object, and by what was usual here. So neither a server that is far away nor a
small one that works at its limit is taken for one that is overloaded.
"""

from __future__ import annotations

import statistics

# https://github.com/kubernetes/community/blob/master/sig-scalability/slos/api_call_latency.md
OBJECTIVE = 1.0
# So many times what is usual.
MULTIPLE = 3.0
# Windows in a row.
ROW = 3

# A window's length in seconds, and answers in it, at least; older ones begin anew.
_WINDOW = 1.0
_ANSWERS = 5
_STALE = 3.0
# How much of a window's median becomes usual; what is long and stays becomes so, too, slowly.
_LEARNT, _LEARNT_LONG = 0.1, 0.02


class Latency:
    """Looks at how long answers take, window by window."""

    def __init__(self) -> None:
        self.usual = 0.0
        self._answers: list[float] = []
        self._since = 0.0
        self._row = 0

    def rises(self, seconds: float, now: float) -> bool:
        """An answer took so long; whether that is one too many.

        Args:
            seconds: until the answer came, or was given up.
            now: in seconds that never jump.
        """
        rises = False
        if self._answers and now - self._since >= _WINDOW:
            if len(self._answers) >= _ANSWERS:
                rises = self._judged(statistics.median(self._answers))
                self._answers = []
            elif now - self._since > _STALE:
                self._answers = []
        if not self._answers:
            self._since = now
        self._answers.append(seconds)
        return rises

    def _judged(self, median: float) -> bool:
        long = median > OBJECTIVE and 0 < self.usual * MULTIPLE < median
        self._row = self._row + 1 if long else 0
        learnt = _LEARNT_LONG if long else _LEARNT
        self.usual += (learnt if self.usual else 1.0) * (median - self.usual)
        if self._row < ROW:
            return False
        self._row = 0
        return True
