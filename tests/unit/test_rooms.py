"""A full namespace: who may look for room, and how many follow; with the real scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest

from kbroker.keys import RedisKeys
from kbroker.redis_client import run
from kbroker.rooms import Full, Rooms

WHY = "exceeded quota: q"
PARKED = RedisKeys().parked("default")
FULL = RedisKeys().full("default")


class World:
    """Launches that are parked, and a namespace, jobs."""

    def __init__(self) -> None:
        self.redis = fakeredis.FakeRedis()
        self.rooms = Rooms(RedisKeys(), "default")

    def do(self, call: Any) -> Any:
        return run(self.redis, [call])[0]

    def wait(self, *items: str, why: str = "", place: str = "jobs") -> None:
        for item in items:
            self.redis.zadd(PARKED, {item: 10**15})
            self.do(self.rooms.wait(place, item, why))

    def may(self, *items: str, place: str = "jobs") -> Sequence[bool] | None:
        """Which of these may be tried; "" is one that was not parked; None: nothing is known."""
        full: Full | None = self.do(self.rooms.ask(place, items))
        return None if full is None else full.may

    def time_passes(self) -> None:
        """Until the next look in every full namespace."""
        for place in self.redis.zrange(FULL, 0, -1):
            self.redis.zadd(FULL, {place: 1})

    def let_out(self) -> set[str]:
        """Who is due now; it is taken in hand, and so not due again soon."""
        self.do(self.rooms.let_out())
        due = self.redis.zrangebyscore(PARKED, "-inf", 10**14)
        for item in due:
            self.redis.zadd(PARKED, {item: 10**15})
        return {item.decode() for item in due}

    def found(self, *items: str, place: str = "jobs") -> None:
        for item in items:
            self.redis.zrem(PARKED, item)
            self.do(self.rooms.found(place))


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_known_of_a_namespace_that_refused_nobody(world: World) -> None:
    assert world.may("", "", "a") is None
    assert world.let_out() == set()
    world.found("a")
    assert world.redis.keys() == []


def test_one_looks_for_all(world: World) -> None:
    world.wait("a", why=WHY)
    world.wait("b", "c")
    assert world.do(world.rooms.ask("jobs", ["", "b"])) == Full(WHY, (False, False))
    assert world.let_out() == set()  # it has just been refused
    world.time_passes()
    assert world.let_out() == {"a"}
    assert world.may("a", "b", "") == (True, False, False)
    assert world.let_out() == set()


def test_who_was_refused_goes_to_the_end(world: World) -> None:
    world.wait("big", why=WHY)
    world.redis.zadd(RedisKeys().full_launches("default", "jobs"), {"big": 1})
    world.wait("small")
    world.time_passes()
    assert world.let_out() == {"big"}
    world.wait("big", why=WHY)
    world.time_passes()
    assert world.let_out() == {"small"}


def test_more_and_more_follow_who_found_room(world: World) -> None:
    names = [f"{number:03}" for number in range(40)]
    world.wait("first", why=WHY)
    world.redis.zadd(RedisKeys().full_launches("default", "jobs"), {"first": 1})
    world.wait(*names)
    world.time_passes()
    rounds = []
    while out := world.let_out():
        rounds.append(len(out))
        assert world.let_out() == set()  # not before all of them are heard of
        world.found(*out)
    assert rounds == [1, 2, 4, 8, 16, 10]
    assert world.may("") is None  # it is forgotten
    assert world.redis.keys() == []


def test_one_that_is_refused_ends_it(world: World) -> None:
    world.wait("a", why=WHY)
    world.wait(*"bcdefgh")
    world.time_passes()
    world.found(*world.let_out())
    out = sorted(world.let_out())
    assert len(out) == 2
    world.found(out[0])
    world.wait(out[1], why=WHY)
    assert world.let_out() == set()
    world.time_passes()
    assert len(world.let_out()) == 1


def test_one_that_is_never_heard_of_again_costs_a_second(world: World) -> None:
    world.wait("a", why=WHY)
    world.wait("b")
    world.time_passes()
    assert len(world.let_out()) == 1
    world.time_passes()
    assert len(world.let_out()) == 1


def test_what_is_not_parked_any_more_is_passed_over(world: World) -> None:
    world.wait("withdrawn", why=WHY)
    world.wait("b")
    world.redis.zrem(PARKED, "withdrawn")
    world.time_passes()
    assert world.let_out() == {"b"}


def test_what_was_dropped_instead_of_parked_does_not_wait(world: World) -> None:
    world.do(world.rooms.wait("jobs", "dropped", WHY))
    assert not world.redis.exists(RedisKeys().full_launches("default", "jobs"))


def test_where_nobody_waits_the_next_launch_looks(world: World) -> None:
    world.do(world.rooms.wait("jobs", "dropped", WHY))
    assert world.may("", "") == (False, False)
    world.time_passes()
    world.let_out()
    assert world.may("", "") == (True, False)
    assert world.may("", "") == (False, False)
    world.found("new")
    world.let_out()
    assert world.may("") is None


def test_one_that_was_parked_when_room_had_been_found_is_due_at_once(world: World) -> None:
    world.wait("late")
    assert world.let_out() == {"late"}


def test_namespaces_do_not_concern_one_another(world: World) -> None:
    world.wait("a", why=WHY, place="jobs")
    world.wait("b", why=WHY, place="other")
    assert world.may("", place="third") is None
    world.time_passes()
    assert world.let_out() == {"a", "b"}
    world.found("a", place="jobs")
    world.let_out()
    assert world.may("", place="jobs") is None
    assert world.may("", place="other") == (False,)


def test_a_namespace_for_which_nobody_asks_is_forgotten(world: World) -> None:
    world.wait("a", why=WHY)
    for key in (
        RedisKeys().full_namespace("default", "jobs"),
        RedisKeys().full_launches("default", "jobs"),
    ):
        assert 0 < world.redis.ttl(key) <= 600
        world.redis.delete(key)
    world.time_passes()
    world.let_out()
    assert not world.redis.exists(FULL)
