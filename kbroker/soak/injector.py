"""Does what the plan says, when it says so."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from redis import RedisError

from kbroker.errors import KbrokerError
from kbroker.kube_client import ApiError
from kbroker.soak.faults import FAULTS
from kbroker.soak.faults.fault import Heal, Missed
from kbroker.soak.plan import Step
from kbroker.soak.stack import SoakStack

# A fault that meets another one may not be possible just now.
_IMPOSSIBLE = (KbrokerError, ApiError, OSError, RedisError)


class Injector:
    """Carries out a plan.

    Args:
        stack: what is broken.
        steps: the plan, by time.
        say: is told what happens.
    """

    def __init__(self, stack: SoakStack, steps: Sequence[Step], say: Callable[[str], None]) -> None:
        self._stack = stack
        self._left = list(reversed(steps))
        self._heals: list[tuple[float, int, str, Heal]] = []
        self._say = say
        self._number = 0

    def turn(self, now: float) -> None:
        """Begin and heal what is due, `now` seconds after the beginning."""
        while self._heals and self._heals[0][0] <= now:
            self._heal()
        while self._left and self._left[-1].at <= now:
            self._begin(self._left.pop(), now)

    def heal_all(self) -> None:
        """Everything works again, and nothing more begins."""
        self._left.clear()
        while self._heals:
            self._heal()

    def _begin(self, step: Step, now: float) -> None:
        self._number += 1
        try:
            heal = FAULTS[step.fault].begin(self._stack, random.Random(step.choice))
        except Missed:
            self._missed(step.fault)
        except _IMPOSSIBLE as error:
            self._stack.impossible += 1
            self._say(f"{step.fault} was not possible: {error}")
        else:
            self._say(f"{step.fault}" + (f" for {step.lasts:.1f} s" if heal else ""))
            if heal is None:
                self._stack.counts[step.fault] += 1
            else:
                entry = (now + step.lasts, self._number, step.fault, heal)
                heapq.heappush(self._heals, entry)

    def _heal(self) -> None:
        _, _, name, heal = heapq.heappop(self._heals)
        try:
            heal()
        except Missed:
            self._missed(name)
        except _IMPOSSIBLE as error:
            self._stack.impossible += 1
            self._say(f"{name} was not healed: {error}")
        else:
            self._stack.counts[name] += 1

    def _missed(self, name: str) -> None:
        self._stack.missed += 1
        self._say(f"{name} met nothing")
