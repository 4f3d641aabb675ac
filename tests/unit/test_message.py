"""What stands on the launch and delete queues: it comes back whole, or is refused by name."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import MessageError, NewerSchemaError, TaskError
from kbroker.message import (
    SCHEMA,
    DeleteMessage,
    LaunchMessage,
    LaunchRequest,
    Removal,
    SecretMessage,
    check_command,
    check_workload,
)
from kbroker.schema import OLDEST
from kbroker.task import Launch, TaskKey
from tests.unit.test_task import IDS, JSON, KEYS, LAUNCHES

MOMENTS = st.integers(0, 2**53 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
CONFIGS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 9) | st.booleans(), max_size=3
)
LAUNCH_MESSAGES = st.builds(
    LaunchMessage,
    attempt=st.builds(Launch.attempt, LAUNCHES, st.integers(1, 2**31 - 1)),
    executor_id=IDS,
    cluster=IDS,
    namespace=IDS,
    command=st.lists(WORDS, min_size=1).map(tuple),
    executor_config=CONFIGS,
    enqueued_at=MOMENTS,
    expires_at=st.none() | MOMENTS,
    traceparent=st.none() | IDS,
    workload=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
DELETE_MESSAGES = st.builds(
    DeleteMessage,
    deployment=IDS,
    cluster=IDS,
    namespace=IDS,
    pod=IDS,
    uid=IDS,
    removal=st.sampled_from(Removal),
    resource_version=st.none() | st.integers(0, 2**63),
    not_before=MOMENTS,
    reason=st.text(st.characters(exclude_categories=["Cs"])),
)
KEY = TaskKey("dag", "task", "run")
LAUNCH = LaunchMessage(
    Launch("prod", KEY, "id").attempt(1),
    "exec-1",
    "default",
    "jobs",
    ("echo", "s3cret"),
    {"env": {"TOKEN": "s3cret"}},
)
DELETE = DeleteMessage("prod", "default", "jobs", "pod-1", "uid-1")
BOTH = pytest.mark.parametrize("message", [LAUNCH, DELETE], ids=["launch", "delete"])


def over_the_wire(fields: dict[str, Any]) -> Any:
    return orjson.loads(orjson.dumps(fields))


@given(LAUNCH_MESSAGES)
def test_a_launch_comes_back_whole(message: LaunchMessage) -> None:
    assert LaunchMessage.from_dict(over_the_wire(message.as_dict())) == message


def test_only_what_carries_a_workload_is_of_the_newer_schema() -> None:
    plain = LAUNCH.as_dict()
    assert plain["v"] == OLDEST == SCHEMA - 1
    assert "workload" not in plain
    assert DELETE.as_dict()["v"] == OLDEST
    with_workload = LAUNCH.changed(workload="{}").as_dict()
    assert (with_workload["v"], with_workload["workload"]) == (SCHEMA, "{}")


def test_a_message_of_either_schema_is_read() -> None:
    assert LaunchMessage.from_dict({**LAUNCH.as_dict(), "v": SCHEMA}) == LAUNCH
    assert DeleteMessage.from_dict({**DELETE.as_dict(), "v": SCHEMA}) == DELETE


def test_another_attempt_has_the_same_workload() -> None:
    assert LAUNCH.changed(workload="{}").for_attempt(2).workload == "{}"


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (b"{}", "workload must be a string, not bytes"),
        ({}, "workload must be a string, not dict"),
        ("\ud800", "workload is not valid Unicode"),
        ("ä" * (512 * 1024 + 1), "workload has 1048578 bytes; a Secret holds 1048576 at most"),
    ],
)
def test_a_workload_that_is_none(workload: Any, said: str) -> None:
    with pytest.raises(TaskError) as failure:
        check_workload(workload)
    assert str(failure.value) == said


@pytest.mark.parametrize("workload", [None, "", "ä" * (512 * 1024)])
def test_any_other_workload_is_kept_as_it_is(workload: str | None) -> None:
    assert check_workload(workload) == workload


@given(st.builds(SecretMessage, deployment=IDS, cluster=IDS, namespace=IDS, name=IDS))
def test_a_request_for_a_secret_comes_back_whole(message: SecretMessage) -> None:
    assert SecretMessage.from_dict(over_the_wire(message.as_dict())) == message


@given(DELETE_MESSAGES)
def test_a_removal_comes_back_whole(message: DeleteMessage) -> None:
    assert DeleteMessage.from_dict(over_the_wire(message.as_dict())) == message


@BOTH
@given(garbage=JSON)
def test_garbage_is_a_message_error(message, garbage: object) -> None:
    with pytest.raises(MessageError):
        type(message).from_dict(garbage)


@given(
    base=st.sampled_from([LAUNCH, DELETE]),
    broken=st.dictionaries(st.sampled_from(sorted(LAUNCH.as_dict())), JSON, min_size=1),
)
def test_a_field_of_any_other_value_is_read_or_a_message_error(base, broken) -> None:
    with contextlib.suppress(MessageError):
        type(base).from_dict({**base.as_dict(), **broken})


@BOTH
def test_a_missing_field_is_a_message_error(message) -> None:
    fields = message.as_dict()
    optional = {"expires_at", "traceparent", "resource_version", "not_before", "reason", "cause"}
    for name in set(fields) - optional:
        with pytest.raises(MessageError):
            type(message).from_dict({k: v for k, v in fields.items() if k != name})


@pytest.mark.parametrize(
    "name",
    ["executor", "cluster", "namespace", "deployment", "launch_id"],
)
@pytest.mark.parametrize("value", ["", 7, None, ["x"]])
def test_names_are_non_empty_strings(name: str, value: object) -> None:
    with pytest.raises(MessageError):
        LaunchMessage.from_dict({**LAUNCH.as_dict(), name: value})


@BOTH
@pytest.mark.parametrize("later", [SCHEMA + 1, SCHEMA + 7])
def test_a_newer_schema_is_said_before_anything_else(message, later: int) -> None:
    with pytest.raises(NewerSchemaError, match=f"schema {later}; this one reads {SCHEMA}"):
        type(message).from_dict({"v": later, "shape": "unknown"})


@BOTH
@pytest.mark.parametrize("version", [0, -1, "1", None, 1.5])
def test_a_schema_that_never_was(message, version: object) -> None:
    with pytest.raises(MessageError) as failure:
        type(message).from_dict({**message.as_dict(), "v": version})
    assert not isinstance(failure.value, NewerSchemaError)


@BOTH
def test_unknown_fields_are_left_for_those_who_know_them(message) -> None:
    assert type(message).from_dict({**message.as_dict(), "new": 1}) == message


@pytest.mark.parametrize(
    "shown",
    [
        repr(LAUNCH),
        str(LAUNCH),
        repr(LaunchRequest(KEY, ["s3cret"], "id", executor_config={"env": "s3cret"})),
        repr(LAUNCH.changed(workload="s3cret")),
        repr(LaunchRequest(KEY, ["true"], "id", workload="s3cret")),
    ],
)
def test_commands_and_configs_are_not_shown(shown: str) -> None:
    assert "s3cret" not in shown


def test_an_unreadable_launch_does_not_show_its_command() -> None:
    for broken in (
        {"command": ["s3cret", 7]},
        {"command": "s3cret"},
        {"config": "s3cret"},
        {"workload": ["s3cret"]},
    ):
        with pytest.raises(MessageError) as failure:
            LaunchMessage.from_dict({**LAUNCH.as_dict(), **broken})
        assert "s3cret" not in str(failure.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "command must be a non-empty list of strings"),
        ((), "command must be a non-empty list of strings"),
        ("ls -l", "command must be a non-empty list of strings"),
        (None, "command must be a non-empty list of strings"),
        ({"a": 1}, "command must be a non-empty list of strings"),
        (["ls", 1], "command must be a list of strings; word 1 is int"),
        (["ls", None], "command must be a list of strings; word 1 is NoneType"),
        ([b"ls"], "command must be a list of strings; word 0 is bytes"),
        (["ls", "\ud800"], "command: word 1 is not valid Unicode"),
        (["ls", "a\0b"], "command: word 1 contains a NUL character"),
    ],
)
def test_a_command_that_is_none(command: object, message: str) -> None:
    with pytest.raises(TaskError) as failure:
        check_command(command)
    assert str(failure.value) == message


@given(st.lists(WORDS, min_size=1))
def test_any_other_command_is_kept_as_it_is(words: list[str]) -> None:
    assert check_command(words) == check_command(tuple(words)) == tuple(words)


@given(KEYS, st.integers(1, 100))
def test_the_same_message_for_another_attempt(key: TaskKey, number: int) -> None:
    message = LAUNCH.changed(attempt=Launch("prod", key, "id").attempt(1))
    other = message.for_attempt(number)
    assert other.attempt == message.attempt.launch.attempt(number)
    assert other.changed(attempt=message.attempt) == message
