"""Which fault happens when: drawn from a seed, so that the same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Nothing is broken any more in the last part of a soak: what is left ends by itself.
LAST_UNTIL = 0.9
# The first fault of every lane begins within so many seconds.
FIRST_WITHIN = 2.0
# What meets no other fault comes seldom, that the others have their time: seconds.
_RARE = 20.0
# Before and after a fault that is to meet no other one.
_CALM = 3.0


@dataclass(frozen=True, slots=True)
class FaultShape:
    """What the plan needs to know of a fault.

    Attributes:
        name: of the fault.
        lane: faults of one lane follow one another, those of others may come at the same time.
        shortest: seconds that it lasts at least.
        longest: seconds that it lasts at most.
        alone: whether it meets no other fault, and no launch that is just being created.
        once: whether once is enough for a soak.
    """

    name: str
    lane: str
    shortest: float
    longest: float
    alone: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a plan.

    Attributes:
        at: seconds from the beginning.
        fault: its name.
        lasts: seconds until it is healed.
        choice: seed of what the fault itself has to choose.
    """

    at: float
    fault: str
    lasts: float
    choice: int

    @property
    def until(self) -> float:
        """When it is healed, in seconds from the beginning."""
        return self.at + self.lasts


def draw(
    seed: int, faults: Sequence[FaultShape], duration: float, gap: float = 2 * FIRST_WITHIN
) -> list[Step]:
    """Plan a soak.

    Args:
        seed: of every choice.
        faults: those that may happen; each of a lane comes about equally often.
        duration: seconds.
        gap: mean seconds between two faults of a lane.

    Returns:
        The steps, by time.
    """
    alone = [shape for shape in faults if shape.alone]
    rare = max(duration / 6, min(_RARE, duration / 2))
    between = (rare, max(rare, duration / 3))
    steps = _lane(random.Random(f"{seed}/alone"), alone, duration, between, [])
    calm = calm_times(steps)
    for lane in dict.fromkeys(shape.lane for shape in faults if not shape.alone):
        shapes = [shape for shape in faults if shape.lane == lane and not shape.alone]
        rng = random.Random(f"{seed}/{lane}")
        steps += _lane(rng, shapes, duration, (0.5 * gap, 1.5 * gap), calm)
    return sorted(steps, key=lambda step: (step.at, step.fault))


def calm_times(steps: Iterable[Step]) -> list[tuple[float, float]]:
    """When nothing else is to happen around these steps."""
    return [(step.at - _CALM, step.until + _CALM) for step in steps]


def _lane(
    rng: random.Random,
    shapes: Sequence[FaultShape],
    duration: float,
    gap: tuple[float, float],
    calm: Sequence[tuple[float, float]],
) -> list[Step]:
    steps: list[Step] = []
    left: list[FaultShape] = []
    begun = False
    now = rng.uniform(0.3, 1.0) * gap[0]
    while shapes:
        if not left:
            again = [shape for shape in shapes if not (begun and shape.once)]
            left, begun = rng.sample(again, len(again)), True
            if not left:
                break
        shape = left.pop()
        step = Step(
            now, shape.name, rng.uniform(shape.shortest, shape.longest), rng.getrandbits(32)
        )
        disturbed = [end for begin, end in calm if step.at < end and step.until > begin]
        if disturbed:
            now = max(disturbed) + rng.uniform(0.0, gap[0])
            left.append(shape)
            continue
        if step.until > duration * LAST_UNTIL:
            break
        steps.append(step)
        now = step.until + rng.uniform(*gap)
    return steps
