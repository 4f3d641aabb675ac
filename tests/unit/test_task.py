"""Task key, launch and attempt: what is allowed, and what tells two of them apart."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import TaskError
from kbroker.task import Attempt, Launch, TaskKey

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
NUMBERS = st.integers(0, 2**31 - 1)
KEYS = st.builds(
    TaskKey,
    dag_id=IDS,
    task_id=IDS,
    run_id=IDS,
    try_number=NUMBERS,
    map_index=st.integers(-1, 2**31 - 1),
    logical_date=st.none() | IDS,
)
LAUNCHES = st.builds(Launch, deployment=IDS, key=KEYS, launch_id=IDS)

KEY = TaskKey("dag", "task", "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dag_id": ""}, "task key: dag_id must not be empty"),
        ({"task_id": ""}, "task key: task_id must not be empty"),
        ({"run_id": ""}, "task key: run_id must not be empty"),
        ({"dag_id": None}, "task key: dag_id must be a string, not NoneType"),
        ({"task_id": 7}, "task key: task_id must be a string, not int"),
        ({"run_id": b"run"}, "task key: run_id must be a string, not bytes"),
        ({"dag_id": "\ud800"}, "task key: dag_id is not valid Unicode"),
        ({"try_number": -1}, "task key: try_number must be from 0 to 2147483647, not -1"),
        ({"try_number": 2**31}, "task key: try_number must be from 0 to 2147483647"),
        ({"try_number": "1"}, "task key: try_number must be an integer, not str"),
        ({"try_number": True}, "task key: try_number must be an integer, not bool"),
        ({"try_number": 1.0}, "task key: try_number must be an integer, not float"),
        ({"map_index": -2}, "task key: map_index must be from -1"),
        ({"logical_date": ""}, "task key: logical_date must not be empty"),
        ({"logical_date": 7}, "task key: logical_date must be a string"),
    ],
)
def test_a_key_that_is_none(fields: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=f"^{re.escape(message)}") as failure:
        KEY.changed(**fields)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("deployment", ["", None, "\udfff"])
def test_a_launch_that_is_none(deployment: object) -> None:
    with pytest.raises(TaskError, match=r"^launch: deployment"):
        Launch(deployment, KEY, "id")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"^launch: launch_id"):
        Launch("prod", KEY, deployment)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, -1, 2**31, "1", True, None])
def test_an_attempt_that_is_none(number: object) -> None:
    with pytest.raises(TaskError, match=r"^attempt: number"):
        Launch("prod", KEY, "id").attempt(number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (KEY, "dag.task run try 1"),
        (TaskKey("dag", "task", "run", 3, 0), "dag.task[0] run try 3"),
        (TaskKey("dag", "task", "run", 1, 12), "dag.task[12] run try 1"),
    ],
)
def test_how_a_key_reads(key: TaskKey, text: str) -> None:
    assert str(key) == text


@given(KEYS)
def test_a_key_comes_back_from_json(key: TaskKey) -> None:
    back = TaskKey.from_list(orjson.loads(orjson.dumps(key.as_list())))
    assert back == key
    assert back.logical_date == key.logical_date


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_anything_else_is_a_task_error(value: object) -> None:
    with contextlib.suppress(TaskError):
        assert isinstance(TaskKey.from_list(value), TaskKey)


def test_the_logical_date_is_not_part_of_the_identity() -> None:
    dated = KEY.changed(logical_date="2026-11-23T00:00:00+00:00")
    assert dated == KEY
    assert hash(dated) == hash(KEY)
    assert Launch("prod", dated, "id").digest == Launch("prod", KEY, "id").digest


@given(LAUNCHES, LAUNCHES)
def test_digests_are_the_same_exactly_for_the_same_launch(one: Launch, other: Launch) -> None:
    again = Launch(one.deployment, TaskKey(*one.key.as_list()[:5]), one.launch_id)
    assert again.digest == one.digest
    assert (one.digest == other.digest) is (one == other)


@given(st.lists(IDS, min_size=5, max_size=5), st.data())
def test_text_moved_between_fields_is_another_launch(parts: list[str], data) -> None:
    """Joined strings would coincide; what stands in which field must count."""
    cut = data.draw(st.integers(0, 3))
    moved = [*parts]
    moved[cut], moved[cut + 1] = parts[cut] + parts[cut + 1][:1], parts[cut + 1][1:] or "x"
    one, other = (
        Launch(deployment, TaskKey(dag, task, run), launch_id)
        for deployment, dag, task, run, launch_id in (parts, moved)
    )
    assert (one.digest == other.digest) is (parts == moved)


DIFFERENT = [
    Launch("prod", KEY, "id"),
    Launch("other", KEY, "id"),
    Launch("prod", KEY, "id2"),
    Launch("prod", TaskKey("dag2", "task", "run"), "id"),
    Launch("prod", TaskKey("dag", "task2", "run"), "id"),
    Launch("prod", TaskKey("dag", "task", "run2"), "id"),
    Launch("prod", TaskKey("dag", "task", "run", 2), "id"),
    Launch("prod", TaskKey("dag", "task", "run", 1, 0), "id"),
    Launch("prod", TaskKey("dag,task", "task", "run"), "id"),
    Launch("prod", TaskKey('dag","task', "task", "run"), "id"),
]


def test_every_part_of_the_identity_counts() -> None:
    assert len({launch.digest for launch in DIFFERENT}) == len(DIFFERENT)
    attempts = {launch.attempt(n).digest for launch in DIFFERENT for n in (1, 2, 11)}
    assert len(attempts) == 3 * len(DIFFERENT)


@given(LAUNCHES)
def test_how_long_digests_are(launch: Launch) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", launch.digest)
    assert re.fullmatch(r"[0-9a-f]{64}", launch.attempt(1).digest)


def test_digests_are_stable() -> None:
    """Redis and Kubernetes hold them across processes and versions."""
    code = (
        "from kbroker.task import *; l = Launch('prod', TaskKey('dag', 'täsk', 'run', 2, 3), 'id');"
        "print(l.digest, l.attempt(1).digest)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    digest, attempt = said.stdout.split()
    assert digest == "1c4853c8aba15c8d9f2493a37e791d02c4fbd9c6"
    assert attempt == "56961fc32afc0a996870a9be251feb0351a84f1d422dd711513a049e44bbe536"


def test_the_next_attempt() -> None:
    attempt = Launch("prod", KEY, "id").attempt(1)
    assert attempt.next() == Attempt(attempt.launch, 2)
    assert attempt.next().digest != attempt.digest


def test_the_json_of_a_key_is_small() -> None:
    """An executor keeps one for each launch, and some encoders leave theirs in a large buffer."""
    launch = Launch("prod", TaskKey("dag", "task", "run"), "id")
    assert launch.key_json == orjson.dumps(launch.key.as_list())
    assert sys.getsizeof(launch.key_json) <= sys.getsizeof(b"") + len(launch.key_json)
