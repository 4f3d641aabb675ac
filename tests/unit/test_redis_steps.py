"""Steps that need Redis: none is starved, and none follows a failure at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kbroker.errors import BrokerUnavailableError
from kbroker.patience import Patience
from kbroker.redis_steps import RETRY_AFTER, RedisSteps


class World:
    """Steps a, b and c, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.taken: list[str] = []
        self.refused: set[str] = set()
        self.slow: dict[str, float] = {}
        self.steps = RedisSteps(Patience(0.5), lambda: self.now)
        self.all = tuple(self.step(name) for name in "abc")

    def step(self, name: str) -> Callable[[], None]:
        """The step of this name."""

        def take() -> None:
            self.taken.append(name)
            self.now += self.slow.get(name, 0.0)
            if name in self.refused:
                raise BrokerUnavailableError("Redis is away")

        return take

    def turns(self, *seconds: float) -> str:
        """Turns, each so much later than the one before; the steps they took."""
        for passed in seconds:
            self.now += passed
            self.steps.turn(self.all)
            self.taken.append(" ")
        took, self.taken = "".join(self.taken).strip(), []
        return took


@pytest.fixture
def world() -> World:
    return World()


def test_each_turn_takes_all_steps_in_order(world: World) -> None:
    assert world.turns(0, 0, 0) == "abc abc abc"
    assert not world.steps.away


def test_a_failure_is_followed_by_a_rest_and_then_by_the_other_steps(world: World) -> None:
    world.refused = {"b"}
    assert world.turns(0, 0.1, RETRY_AFTER - 0.2, 0.2, RETRY_AFTER) == "ab   cab cab"
    assert world.steps.away
    assert not world.steps.run(world.all[0])
    world.refused = set()
    assert world.turns(RETRY_AFTER, 0) == "cab abc"
    assert not world.steps.away


def test_each_step_gets_its_turn_however_slow_redis_is(world: World) -> None:
    world.slow = {"a": 0.26, "c": 0.26}
    assert world.turns(0, 0, 0) == "a bc a"


def test_a_row_of_waits_ends_in_time() -> None:
    now = 100.0
    patience = Patience(0.5, lambda: now)
    assert patience.left() == 0.5
    with patience.together(0.9):
        assert patience.left() == 0.5
        now += 0.6
        assert patience.left() == pytest.approx(0.3)
        now += 1.0
        assert patience.left() == 0.001
    assert patience.left() == 0.5
