"""The store's promise to watches: a state and the changes after it give every later state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.selectors import matcher
from kbroker.local.cluster.store import Change, Store, Stored
from kbroker.local.cluster.watch import Watch

NAMES = st.sampled_from(["a", "b", "c"])
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), NAMES, st.sampled_from(["red", "blue"])),
    max_size=40,
)


def carry_out(store: Store, operation: tuple[str, str, str]) -> None:
    what, name, color = operation
    stored = store.find("pods", "x", name)
    if what == "remove":
        if stored is not None:
            store.remove("pods", stored)
        return
    if stored is None:
        metadata: dict[str, Any] = {"name": name, "namespace": "x", "labels": {"color": color}}
        store.create("pods", {"metadata": metadata})
        return
    content = stored.copy()
    content["metadata"]["labels"] = {"color": color}
    store.replace("pods", stored, content)


def present(store: Store, color: str = "") -> dict[str, str]:
    return {
        stored.object["metadata"]["name"]: stored.object["metadata"]["resourceVersion"]
        for stored in store.all("pods")
        if color in ("", stored.object["metadata"]["labels"]["color"])
    }


def apply(state: dict[str, str], kind: str, stored: Stored) -> None:
    name = stored.object["metadata"]["name"]
    if kind == "DELETED":
        del state[name]
    else:
        assert (kind == "ADDED") == (name not in state)
        state[name] = stored.object["metadata"]["resourceVersion"]


@given(before=OPERATIONS, after=OPERATIONS, color=st.sampled_from(["", "red"]))
def test_replay_of_the_history_gives_the_present(
    before: list[tuple[str, str, str]], after: list[tuple[str, str, str]], color: str
) -> None:
    store = Store(10_000)
    for operation in before:
        carry_out(store, operation)
    state, version = present(store, color), store.version
    for operation in after:
        carry_out(store, operation)
    matches = matcher(f"color={color}" if color else "", "")
    watch = Recording(store, "pods", "x", matches, lambda stored: stored.raw)
    watch.begin(version)
    for kind, stored in watch.seen:
        apply(state, kind, stored)
    assert state == present(store, color)


class Recording(Watch):
    """A watch whose changes can be looked at."""

    def __init__(self, *terms: Any) -> None:
        super().__init__(*terms)
        self.seen: list[tuple[str, Stored]] = []

    def _say_change(self, kind: str, stored: Stored) -> None:
        self.seen.append((kind, stored))


def test_versions_grow_by_one_for_all_resources_together() -> None:
    store, seen = Store(10), []
    for resource in ("pods", "secrets"):
        store.listen(resource, lambda change: seen.append(change.version))
        store.create(resource, {"metadata": {"name": "a"}})
    assert seen == [2, 3]
    assert store.version == 3


def test_history_is_bounded_for_each_resource() -> None:
    store = Store(2)
    store.create("secrets", {"metadata": {"name": "a"}})
    versions = [store.create("pods", {"metadata": {"name": n}}).version for n in "abc"]
    assert [change.version for change in store.since("pods", versions[0])] == versions[1:]
    with pytest.raises(Failure, match="too old resource version") as refused:
        store.since("pods", versions[0] - 1)
    assert refused.value.code == 410
    assert len(store.since("secrets", 1)) == 1


def test_compaction_forgets_all_of_it() -> None:
    store = Store(10)
    version = store.create("pods", {"metadata": {"name": "a"}}).version
    store.create("secrets", {"metadata": {"name": "b"}})
    number = store.keep(list(store.all("pods")))
    store.compact()
    for forgotten in (
        lambda: store.since("pods", version),
        lambda: store.kept(number, version),
    ):
        with pytest.raises(Failure) as refused:
            forgotten()
        assert refused.value.code == 410
    assert store.since("pods", store.version) == []
    assert store.find("pods", "", "a") is not None


def test_an_object_is_encoded_once_for_all_readers() -> None:
    store = Store(10)
    changes: list[Change] = []
    store.listen("pods", changes.append)
    stored = store.create("pods", {"metadata": {"name": "a"}})
    assert changes[0].now.raw is stored.raw is store.get("pods", "", "a").raw


def test_nothing_happens_when_nothing_differs() -> None:
    store = Store(10)
    stored = store.create("pods", {"metadata": {"name": "a"}})
    assert store.replace("pods", stored, stored.copy()) is stored
    assert store.version == stored.version
