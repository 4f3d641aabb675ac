"""What is asked about a log and what is answered: it comes back whole, or is refused by name."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import MessageError, NewerSchemaError
from kbroker.event import PodState
from kbroker.log_message import MOST_LINES, SCHEMA, LogAnswer, LogRequest, reply_name
from tests.unit.test_task import IDS, JSON

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
REQUESTS = st.builds(
    LogRequest,
    deployment=IDS,
    cluster=IDS,
    namespace=IDS,
    pod=IDS,
    uid=st.none() | IDS,
    lines=st.integers(1, MOST_LINES),
    reply=st.builds(reply_name),
    until=st.integers(0, 2**53 - 1),
)
ANSWERS = st.builds(
    LogAnswer,
    exists=st.none() | st.booleans(),
    text=TEXTS,
    state=st.none() | st.sampled_from(PodState),
    why=TEXTS,
    events=st.lists(TEXTS).map(tuple),
    notes=st.lists(TEXTS).map(tuple),
)
REQUEST = LogRequest("prod", "default", "jobs", "pod-1", "uid-1", 100, "0f" * 16, 1)
ANSWER = LogAnswer(True, "s3cret\n", PodState.RUNNING, "", ("Pulled: it",), ("cut",))
BOTH = pytest.mark.parametrize("value", [REQUEST, ANSWER], ids=["request", "answer"])


def fields(value: LogRequest | LogAnswer) -> dict[str, Any]:
    return orjson.loads(value.encode())


@given(REQUESTS | ANSWERS)
def test_it_comes_back_whole(value: LogRequest | LogAnswer) -> None:
    assert type(value).decode(value.encode()) == value


@BOTH
@given(garbage=st.binary() | JSON.map(orjson.dumps))
def test_garbage_is_a_message_error(value, garbage: bytes) -> None:
    with pytest.raises(MessageError):
        type(value).decode(garbage)


@given(
    base=st.sampled_from([REQUEST, ANSWER]),
    broken=st.dictionaries(
        st.sampled_from(sorted({*fields(REQUEST), *fields(ANSWER)})), JSON, min_size=1
    ),
)
def test_a_field_of_any_other_value_is_read_or_a_message_error(base, broken) -> None:
    with contextlib.suppress(MessageError):
        type(base).decode(orjson.dumps({**fields(base), **broken}))


@BOTH
def test_a_missing_field_is_a_message_error(value) -> None:
    for name in set(fields(value)) - {"uid"}:
        rest = {k: v for k, v in fields(value).items() if k != name}
        with pytest.raises(MessageError):
            type(value).decode(orjson.dumps(rest))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("lines", wrong) for wrong in (0, -1, MOST_LINES + 1, "9", 1.5, True, None)),
        *(("until", wrong) for wrong in (-1, 2**53, "9", None)),
        # Nobody can have an answer put where it does not belong.
        *(("reply", wrong) for wrong in ("", "0F" * 16, "0f" * 15, "tasks", "0f" * 16 + "\n", 7)),
        *(("pod", wrong) for wrong in ("", 7, None, ["x"])),
        ("uid", ""),
    ],
)
def test_a_request_with_a_field_out_of_bounds(name: str, wrong: object) -> None:
    with pytest.raises(MessageError, match="not a log request"):
        LogRequest.decode(orjson.dumps({**fields(REQUEST), name: wrong}))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("exists", "yes"),
        ("exists", 1),
        ("text", None),
        ("text", ["x"]),
        ("state", "unheard of"),
        ("events", "x"),
        ("events", [1]),
        ("notes", None),
    ],
)
def test_an_answer_with_a_field_of_the_wrong_type(name: str, wrong: object) -> None:
    with pytest.raises(MessageError, match="not a log answer"):
        LogAnswer.decode(orjson.dumps({**fields(ANSWER), name: wrong}))


@BOTH
def test_a_newer_schema_is_said_before_anything_else(value) -> None:
    with pytest.raises(NewerSchemaError, match=f"schema {SCHEMA + 1}; this one reads {SCHEMA}"):
        type(value).decode(orjson.dumps({"v": SCHEMA + 1, "shape": "unknown"}))


@BOTH
def test_unknown_fields_are_left_for_those_who_know_them(value) -> None:
    assert type(value).decode(orjson.dumps({**fields(value), "new": 1})) == value


def test_a_log_does_not_show() -> None:
    assert "s3cret" not in repr(ANSWER)
    with pytest.raises(MessageError) as failure:
        LogAnswer.decode(b'{"text": "s3cret')
    assert "s3cret" not in str(failure.value)


def test_no_two_replies_go_to_one_place() -> None:
    assert len({reply_name() for _ in range(100)}) == 100
