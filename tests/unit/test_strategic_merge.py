"""Our strategic merge against kubectl's: fixtures, and the fixtures against kubectl."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import TemplateError
from kbroker.strategic_merge import strategic_merge

sys.path.insert(0, str(Path(__file__).parent / "strategic_merge_cases"))
from regenerate import RESULTS, ask_kubectl, load_cases

CASES = load_cases()
ANSWERS: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))

# kubectl leaves nulls and directives of a new element in its result; they mean nothing
# there. Only these cases are compared without them, all others as they stand.
LEFTOVERS = {"new container with nulls", "new volume with retainKeys"}


def without_leftovers(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: without_leftovers(inner)
            for name, inner in value.items()
            if inner is not None and not name.startswith("$")
        }
    return [without_leftovers(item) for item in value] if isinstance(value, list) else value


def test_every_case_has_an_answer():
    assert set(CASES) == set(ANSWERS)
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_equals_kubectl(name):
    base, patch = CASES[name]
    before = copy.deepcopy((base, patch))
    answer = ANSWERS[name]
    if "error" in answer:
        with pytest.raises(TemplateError):
            strategic_merge(base, patch)
    else:
        expected = answer["result"]
        if name in LEFTOVERS:
            assert expected != without_leftovers(expected)
            expected = without_leftovers(expected)
        assert strategic_merge(base, patch) == expected
    assert (base, patch) == before


@pytest.mark.parametrize(
    "name",
    [
        "both containers in the other order",
        "env in the patch's order",
        "new volume with retainKeys",
        "absent security context replaced",
        "tolerations replaced",
        "finalizers added, deleted and ordered",
        "order against the patch",
    ],
)
def test_kubectl_still_says_so(name):
    assert ask_kubectl(*CASES[name]) == ANSWERS[name]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            {"spec": {"containers": [{"image": "x"}]}},
            "pod.spec.containers: every element must be an object with 'name'",
        ),
        (
            {"spec": {"containers": [{"name": "base", "resources": {"$patch": "drop"}}]}},
            "pod.spec.containers[base].resources: $patch must be 'replace' or 'delete' here, "
            "not 'drop'",
        ),
        (
            {"spec": {"containers": [{"name": "base", "$patch": "merge"}]}},
            "pod.spec.containers: $patch of an element must be 'replace' or 'delete', not 'merge'",
        ),
        (
            {"spec": {"volumes": [{"name": "data", "$retainKeys": ["name"], "emptyDir": {}}]}},
            "pod.spec.volumes[data]: $retainKeys does not list 'emptyDir', which the patch sets",
        ),
        (
            {"spec": {"$setElementOrder/tolerations": [{"key": "gpu"}]}},
            "pod.spec.tolerations: $setElementOrder/ needs a list that is merged; "
            "this one is replaced",
        ),
        (
            {"spec": {"$deleteFromPrimitiveList/volumes": ["data"]}},
            "pod.spec: $deleteFromPrimitiveList/volumes needs a merged list of scalars, "
            "such as finalizers",
        ),
        (
            {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
            "pod.metadata.$deleteFromPrimitiveList/finalizers: must be a list, not str",
        ),
    ],
)
def test_errors_name_the_place(patch, message):
    with pytest.raises(TemplateError) as caught:
        strategic_merge(CASES["empty patch"][0], patch)
    assert str(caught.value) == message


def test_unknown_fields_merge_where_kubectl_refuses():
    base = {"spec": {"future": {"a": 1, "b": [1]}}}
    patch = {"spec": {"future": {"b": [2], "c": 3}}}
    assert strategic_merge(base, patch) == {"spec": {"future": {"a": 1, "b": [2], "c": 3}}}


def test_deletions_of_an_absent_list_do_nothing():
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge({"metadata": {}}, patch) == {"metadata": {}}


def test_merge_keys_compare_by_type():
    base = {"spec": {"containers": [{"name": "base", "ports": [{"containerPort": 1}]}]}}
    patch = {"spec": {"containers": [{"name": "base", "ports": [{"containerPort": True}]}]}}
    merged = strategic_merge(base, patch)
    assert merged["spec"]["containers"][0]["ports"] == [
        {"containerPort": True},
        {"containerPort": 1},
    ]


NAMES = st.sampled_from(["base", "sidecar", "data", "new"])
ENV = st.lists(
    st.builds(lambda name, value: {"name": name, "value": value}, NAMES, st.text(max_size=3)),
    max_size=4,
    unique_by=lambda entry: entry["name"],
)
CONTAINERS = st.lists(
    st.builds(lambda name, env: {"name": name, "env": env}, NAMES, ENV),
    max_size=4,
    unique_by=lambda container: container["name"],
)
PODS = st.builds(
    lambda containers, labels: {
        "metadata": {"labels": labels},
        "spec": {"containers": containers},
    },
    CONTAINERS,
    st.dictionaries(NAMES, st.text(max_size=3), max_size=3),
)


@given(PODS, PODS)
def test_a_patch_without_directives_wins_and_repeats(base, patch):
    before = copy.deepcopy((base, patch))
    once = strategic_merge(base, patch)
    assert (base, patch) == before
    assert strategic_merge(once, patch) == once
    assert once["metadata"]["labels"] == base["metadata"]["labels"] | patch["metadata"]["labels"]

    def env(pod: dict[str, Any]) -> dict[tuple[str, str], str]:
        return {
            (container["name"], entry["name"]): entry["value"]
            for container in pod["spec"]["containers"]
            for entry in container["env"]
        }

    assert env(once) == env(base) | env(patch)


@given(PODS)
def test_the_empty_patch_copies(base):
    copied = strategic_merge(base, {})
    assert copied == base
    copied["spec"]["containers"].append({})
    copied["metadata"]["labels"]["changed"] = "yes"
    assert strategic_merge(base, {}) != copied
