"""Lists: selectors, pages of one moment, and versions that the server has not reached."""

from __future__ import annotations

import time

import pytest

from kbroker.pod import PodPage
from tests.conformance.played_node import NODE, PlayedNode
from tests.conformance.pods import CASE, Pods

FAR = 1_000_000_000  # versions ahead


@pytest.mark.parametrize(
    ("selector", "matched"),
    [
        ("", "abcd"),
        ("tier=x", "a"),
        ("tier==y", "b"),
        ("tier!=x", "bcd"),
        ("tier in (x,y)", "ab"),
        ("tier notin (x)", "bcd"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("tier in (x,y),!extra", "b"),
        ("extra,tier notin (y)", "ac"),
        ("tier=", "c"),
    ],
)
def test_label_selectors(pods: Pods, selector: str, matched: str) -> None:
    for name, labels in (
        ("a", {"tier": "x", "extra": "1"}),
        ("b", {"tier": "y"}),
        ("c", {"tier": "", "extra": "2"}),
        ("d", {}),
    ):
        pods.create(labels={"is": name, **labels})
    both = ",".join(part for part in (pods.selector, selector) if part)
    page = pods.cluster.do(pods.kube.list_pods(pods.namespace, both, limit=100))
    found = [pods.whole(pod.name)["metadata"]["labels"]["is"] for pod in page.items]
    assert "".join(sorted(found)) == matched


def test_field_selectors(pods: Pods, node: PlayedNode) -> None:
    waits, bound, ran = pods.create(), pods.create(), pods.create()
    for pod in (bound, ran):
        node.bind(pod.name)
    node.runs(ran.name)
    node.ends(ran.name)
    for selector, expected in (
        (f"metadata.name={waits.name}", {waits}),
        (f"metadata.name!={waits.name}", {bound, ran}),
        ("spec.nodeName=", {waits}),
        (f"spec.nodeName={NODE}", {bound, ran}),
        ("status.phase=Succeeded", {ran}),
        ("status.phase!=Succeeded", {waits, bound}),
        (f"spec.nodeName={NODE},status.phase=Pending", {bound}),
        ("status.phase=Pending,status.phase=Running", set()),
    ):
        names = pods.names(fieldSelector=selector)
        assert set(names) == {pod.name for pod in expected}, selector


@pytest.mark.parametrize(
    "query",
    [
        {"labelSelector": "a in"},
        {"labelSelector": "a=b c"},
        {"fieldSelector": "spec.hostname=a"},
        {"fieldSelector": "no equals sign"},
        {"limit": "2", "continue": "not-a-token"},
    ],
    ids=lambda query: "-".join(query.values()),
)
def test_a_query_that_cannot_be_read(pods: Pods, query: dict[str, str]) -> None:
    answer = pods.cluster.call("GET", pods.path("", **query)).expect(400)
    assert (answer["kind"], answer["reason"]) == ("Status", "BadRequest")


def test_pages_show_one_moment(pods: Pods) -> None:
    made = [pods.create() for _ in range(5)]
    names = sorted(pod.name for pod in made)

    def page(token: str | None = None) -> PodPage:
        return pods.cluster.do(
            pods.kube.list_pods(pods.namespace, pods.selector, limit=2, continue_token=token)
        )

    first = page()
    assert first.metadata.continue_token
    # What happens between the pages is not in them.
    last = next(pod for pod in made if pod.name == names[-1])
    pods.delete(last)
    pods.create()
    second = page(first.metadata.continue_token)
    third = page(second.metadata.continue_token)
    pages = [first, second, third]
    assert [pod.name for part in pages for pod in part.items] == names
    assert [len(part.items) for part in pages] == [2, 2, 1]
    assert {part.version for part in pages} == {first.version}
    assert not third.metadata.continue_token
    assert last.name not in pods.names()


def test_a_version_grows_with_every_change(pods: Pods) -> None:
    before = pods.version()
    pod = pods.create()
    assert before < pod.resource_version <= pods.version()


def test_a_version_that_is_not_reached_yet(pods: Pods) -> None:
    pods.create()
    present = pods.version()
    query = {"labelSelector": pods.selector, "resourceVersion": str(present + FAR)}
    answer = pods.cluster.call("GET", pods.path("", **query)).expect(504)
    assert answer["reason"] == "Timeout"
    assert "Too large resource version" in answer["message"]
    causes = [cause["reason"] for cause in answer["details"]["causes"]]
    assert causes == ["ResourceVersionTooLarge"]


def test_a_version_that_is_not_older_is_enough(pods: Pods) -> None:
    pod = pods.create()
    started = time.monotonic()
    query = {"resourceVersion": str(pod.resource_version), "labelSelector": f"{CASE}={pods.case}"}
    assert pods.names(**query) == [pod.name]
    assert pods.names(resourceVersionMatch="NotOlderThan", **query) == [pod.name]
    assert time.monotonic() - started < 10
