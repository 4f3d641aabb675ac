"""Whatever a client sends is either carried out or refused: never an error of the server's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.patches import JSON, MERGE, STRATEGIC, patched
from kbroker.local.cluster.resources import Resources
from kbroker.local.cluster.store import Store

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "metadata", "labels", "spec", "containers", "env", "image", "hard", "data"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def pod() -> dict[str, Any]:
    container = {
        "name": "base",
        "image": "x",
        "command": ["true"],
        "env": [{"name": "A", "value": "1"}],
    }
    return {
        "metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {}},
        "spec": {"containers": [container], "nodeSelector": {"a": "b"}, "restartPolicy": "Never"},
    }


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in an object."""
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, dict | list):
        for step, inner in steps:
            found += paths(inner, (*path, step))
    return found


def outcome(call: Callable[[], object]) -> int:
    """The code of a refusal; 201 without one."""
    try:
        call()
    except Failure as failure:
        return failure.code
    return 201


def resources() -> Resources:
    made = Resources(Store(100))
    made.create("namespaces", "", {"metadata": {"name": "n"}})
    return made


@given(where=st.sampled_from(paths(pod())[1:]), junk=JUNK)
def test_pod_with_junk_in_it(where: tuple[Any, ...], junk: Any) -> None:
    content = pod()
    place: Any = content
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = junk
    assert outcome(lambda: resources().create("pods", "n", content)) in (201, 400, 422)


@given(resource=st.sampled_from(["pods", "secrets", "configmaps", "resourcequotas"]), junk=JUNK)
def test_junk_as_an_object(resource: str, junk: Any) -> None:
    assert outcome(lambda: resources().create(resource, "n", junk)) in (201, 400, 422)


@given(kind=st.sampled_from([JSON, MERGE, STRATEGIC]), patch=JUNK | st.lists(JUNK, max_size=2))
def test_junk_as_a_patch(kind: str, patch: Any) -> None:
    server = resources()
    uid = server.create("pods", "n", pod()).object["metadata"]["uid"]
    patched_now = outcome(lambda: server.patch("pods", "n", "a", kind, patch))
    assert patched_now in (201, 400, 409, 422)
    assert server.store.get("pods", "n", "a").object["metadata"]["uid"] == uid


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": {"x": [1, 2]}, "b": 1}),
        ([{"op": "add", "path": "/a/x/1", "value": 9}], {"a": {"x": [1, 9, 2]}}),
        ([{"op": "add", "path": "/a/x/-", "value": 9}], {"a": {"x": [1, 2, 9]}}),
        ([{"op": "replace", "path": "/a/x/0", "value": 9}], {"a": {"x": [9, 2]}}),
        ([{"op": "remove", "path": "/a/x/0"}], {"a": {"x": [2]}}),
        ([{"op": "move", "from": "/a/x", "path": "/y"}], {"a": {}, "y": [1, 2]}),
        ([{"op": "copy", "from": "/a/x/1", "path": "/a/y"}], {"a": {"x": [1, 2], "y": 2}}),
        (
            [{"op": "add", "path": "/a~1b", "value": {"~": 1}}],
            {"a": {"x": [1, 2]}, "a/b": {"~": 1}},
        ),
    ],
)
def test_json_patch(operations: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    given_object = {"a": {"x": [1, 2]}}
    assert patched(JSON, given_object, operations) == expected
    assert given_object == {"a": {"x": [1, 2]}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "remove", "path": "/a/x/7"},
        {"op": "test", "path": "/a/x/0", "value": 7},
        {"op": "add", "path": "/none/deeper", "value": 1},
        {"op": "explode", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_json_patch_that_cannot_be_applied(operation: dict[str, Any]) -> None:
    with pytest.raises(Failure) as refused:
        patched(JSON, {"a": {"x": [1, 2]}}, [operation])
    assert refused.value.code == 422
