"""Steps that need Redis, taken by a loop that must never wait long for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from kbroker.errors import BrokerUnavailableError
from kbroker.patience import Patience

log = logging.getLogger(__name__)

Step = Callable[[], object]

# How long Redis is left alone after it did not answer.
RETRY_AFTER = 1.0

# No step of a turn begins later than this many seconds after the turn.
_BEGIN_WITHIN = 0.25


class RedisSteps:
    """Runs steps; the absence of Redis is said once, and is no error.

    One that fails is followed by none for RETRY_AFTER seconds.

    Args:
        patience: of the client that the steps use.
        monotonic: seconds that never jump.

    Attributes:
        away: whether Redis did not answer, or refused, when it was last needed.
    """

    def __init__(self, patience: Patience, monotonic: Callable[[], float]) -> None:
        self.away = False
        self._patience = patience
        self._monotonic = monotonic
        self._rest_until = 0.0
        self._first: Step | None = None

    def run(self, step: Step) -> bool:
        """Run a step unless Redis is left alone; whether it was carried out."""
        return not self.resting and self._carry_out(step)

    def _carry_out(self, step: Step) -> bool:
        try:
            step()
        except BrokerUnavailableError as error:
            self._rest_until = self._monotonic() + RETRY_AFTER
            if not self.away:
                log.warning("%s; what is wanted waits here", error, extra={"action": "redis-away"})
            self.away = True
            return False
        return True

    def run_briefly(self, step: Step) -> bool:
        """The same for a step that may wait no longer than a turn."""
        with self._patience.together(self._patience.limit + _BEGIN_WITHIN):
            return self.run(step)

    @property
    def resting(self) -> bool:
        """Whether Redis is left alone now."""
        return self._monotonic() < self._rest_until

    def turn(self, steps: Sequence[Step]) -> None:
        """Run these in order, for `Patience.limit` + 0.25 seconds at most.

        Those that a slow or failing Redis leaves no time for are the first of the next turn,
        so that each gets its turn. Only when all were carried out is Redis back.
        """
        if self.resting:
            return
        start = steps.index(self._first) if self._first in steps else 0
        order = [*steps[start:], *steps[:start]]
        self._first = None
        begun = self._monotonic()
        with self._patience.together(self._patience.limit + _BEGIN_WITHIN):
            for number, step in enumerate(order):
                if number and self._monotonic() - begun > _BEGIN_WITHIN:
                    self._first = step
                    return
                if not self._carry_out(step):
                    self._first = order[(number + 1) % len(order)]
                    return
        if self.away:
            log.warning("Redis is back", extra={"action": "redis-back"})
        self.away = False
