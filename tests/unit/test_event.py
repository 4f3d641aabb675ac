"""Pod events and outcomes: they come back whole, or are refused by name."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import MessageError, NewerSchemaError
from kbroker.event import SCHEMA, Cause, Outcome, PodEvent, PodState, Started
from kbroker.task import Launch, TaskKey
from tests.unit.test_task import IDS, JSON, LAUNCHES

EVENTS = st.builds(
    PodEvent,
    attempt=st.builds(Launch.attempt, LAUNCHES, st.integers(1, 2**31 - 1)),
    cluster=IDS,
    namespace=IDS,
    pod=IDS,
    state=st.sampled_from(PodState),
    uid=st.none() | IDS,
    resource_version=st.integers(0, 2**64 - 1),
    started=st.sampled_from(Started),
    cause=st.none() | st.sampled_from(Cause),
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    message=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    node=st.none() | IDS,
    at=st.none() | st.floats(0, 2**40),
)
EVENT = PodEvent(
    Launch("prod", TaskKey("dag", "task", "run"), "id").attempt(1),
    "default",
    "jobs",
    "pod-1",
    PodState.RUNNING,
    uid="uid-1",
    resource_version=7,
)


@given(EVENTS)
def test_an_event_comes_back_whole(event: PodEvent) -> None:
    back = PodEvent.decode(event.encode())
    assert back == event
    assert back.launch.key.logical_date == event.launch.key.logical_date


@given(EVENTS)
def test_the_launch_of_an_event_may_be_known(event: PodEvent) -> None:
    launches = {event.launch.name: event.launch}
    back = PodEvent.decode(event.encode(), launches.get)
    assert back == event
    assert back.launch is event.launch


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("key", ["dag", "task", "run", True, -1], "try_number must be an integer"),
        ("key", ["dag", "task", "run", 1.0, -1], "try_number must be an integer"),
        ("key", ["dag", "task", "run", 1, -1, 7], "logical_date must be a string"),
        ("launch_id", 1, r"Expected `str`, got `int` - at `\$.launch_id`"),
        ("attempt", True, r"Expected `int`, got `bool` - at `\$.attempt`"),
        ("attempt", 0, "number must be from 1"),
    ],
)
def test_what_is_only_like_a_known_launch_is_checked(field: str, value, error: str) -> None:
    """To Python 1, 1.0 and true are equal."""
    launches = {EVENT.launch.name: EVENT.launch}
    fields = {**orjson.loads(EVENT.encode()), field: value}
    with pytest.raises(MessageError, match=error):
        PodEvent.decode(orjson.dumps(fields), launches.get)


def test_a_logical_date_is_the_one_that_the_event_says() -> None:
    launches = {EVENT.launch.name: EVENT.launch}
    fields = orjson.loads(EVENT.encode())
    fields["key"].append("2026-01-01")
    back = PodEvent.decode(orjson.dumps(fields), launches.get)
    assert back.launch == EVENT.launch
    assert back.launch.key.logical_date == "2026-01-01"


def test_versions_are_strings_in_json() -> None:
    """Other readers lose the last digits of large numbers."""
    fields = orjson.loads(EVENT.encode())
    assert fields["resource_version"] == "7"


BROKEN = st.dictionaries(st.sampled_from(sorted(orjson.loads(EVENT.encode()))), JSON)


@given(st.binary() | JSON.map(orjson.dumps))
def test_garbage_is_a_message_error(data: bytes) -> None:
    with pytest.raises(MessageError):
        PodEvent.decode(data)


@given(broken=BROKEN)
def test_a_field_of_any_other_value_is_read_or_a_message_error(broken) -> None:
    fields = {**orjson.loads(EVENT.encode()), **broken}
    with contextlib.suppress(MessageError):
        PodEvent.decode(orjson.dumps(fields))


@pytest.mark.parametrize("name", sorted(set(orjson.loads(EVENT.encode())) - {"uid"}))
def test_a_missing_field_is_a_message_error(name: str) -> None:
    fields = orjson.loads(EVENT.encode())
    del fields[name]
    with pytest.raises(MessageError):
        PodEvent.decode(orjson.dumps(fields))


@pytest.mark.parametrize("field", ["state", "started", "cause"])
def test_a_value_that_no_table_knows_is_a_message_error(field: str) -> None:
    fields = {**orjson.loads(EVENT.encode()), field: "unheard-of"}
    with pytest.raises(MessageError, match="unheard-of"):
        PodEvent.decode(orjson.dumps(fields))


def test_a_newer_schema_is_said_before_anything_else() -> None:
    with pytest.raises(NewerSchemaError, match=f"schema {SCHEMA + 1}; this one reads {SCHEMA}"):
        PodEvent.decode(orjson.dumps({"v": SCHEMA + 1, "shape": "unknown"}))


@pytest.mark.parametrize(
    ("state", "final"),
    [
        (PodState.WAITING, False),
        (PodState.PENDING, False),
        (PodState.RUNNING, False),
        (PodState.SUCCEEDED, True),
        (PodState.FAILED, True),
    ],
)
def test_which_states_are_final(state: PodState, final: bool) -> None:
    event = PodEvent(EVENT.attempt, "default", "jobs", "pod-1", state)
    assert event.final is final


def test_another_cause_for_the_same_event() -> None:
    event = EVENT.because(Cause.IMAGE_PULL, "no such image")
    assert (event.cause, event.message) == (Cause.IMAGE_PULL, "no such image")
    assert (event.attempt, event.uid, event.resource_version) == (EVENT.attempt, "uid-1", 7)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome("id", 1), "succeeded"),
        (Outcome("id", 3, exit_code=0), "succeeded"),
        (Outcome("id", 1, Cause.ERROR, 3, "it said no"), "error, exit code 3: it said no"),
        (
            Outcome("id", 2, Cause.OOM_KILLED, 137, "out of memory"),
            "oom_killed, exit code 137 after 2 attempts: out of memory",
        ),
        (Outcome("id", 1, Cause.VANISHED), "vanished: no message"),
    ],
)
def test_how_an_outcome_reads(outcome: Outcome, text: str) -> None:
    assert str(outcome) == text
