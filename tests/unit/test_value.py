"""Values: compared by what they say, and never changed."""

from __future__ import annotations

from typing import ClassVar

import pytest

from kbroker.task import Launch, TaskKey
from kbroker.value import Value


class Place(Value, frozen=True):
    cluster: str
    namespace: str = "jobs"


class Login(Value, frozen=True):
    HIDDEN: ClassVar[frozenset[str]] = frozenset({"password"})

    name: str
    password: str


def test_equal_values_are_one_key() -> None:
    assert {Place("a"), Place("a", "jobs"), Place("b").changed(cluster="a")} == {Place("a")}
    assert Place("a") != Place("a", "other")


def test_they_are_never_changed() -> None:
    place = Place("a")
    with pytest.raises(AttributeError):
        place.cluster = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        place.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        place.changed(other=1)
    assert place == Place("a")


def test_what_is_secret_does_not_show() -> None:
    assert repr(Login("ann", "secret")) == "Login(name='ann')"
    assert repr(Place("a")) == "Place(cluster='a', namespace='jobs')"


def test_a_changed_launch_has_a_digest_of_its_own() -> None:
    launch = Launch("prod", TaskKey("d", "t", "r"), "one")
    assert launch.digest
    other = launch.changed(launch_id="two")
    assert other.digest == Launch("prod", TaskKey("d", "t", "r"), "two").digest
    attempt = launch.attempt(1)
    assert attempt.digest
    assert attempt.changed(number=2).digest == attempt.next().digest == launch.attempt(2).digest
