"""Values: what a dataclass gives them, frozen or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbroker.value import value


@value
class Place:
    cluster: str
    namespace: str = "jobs"


@value
class Named:
    name: str
    rest: int

    def __hash__(self) -> int:
        return hash(self.name)


def test_equal_values_are_one_key() -> None:
    assert {Place("a"), Place("a", "jobs"), replace(Place("b"), cluster="a")} == {Place("a")}
    assert Place("a") != Place("a", "other")


def test_a_hash_of_its_own_stays() -> None:
    assert hash(Named("n", 1)) == hash(Named("n", 2)) == hash("n")
    assert Named("n", 1) != Named("n", 2)


def test_they_have_slots() -> None:
    with pytest.raises(AttributeError):
        Place("a").other = 1
