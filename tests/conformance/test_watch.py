"""Watches: nothing is missing, nothing comes twice, and it is known how far they are."""

from __future__ import annotations

import time

from tests.conformance.cluster import poll
from tests.conformance.played_node import PlayedNode
from tests.conformance.pods import CASE, Pods


def relabel(pods: Pods, name: str, **labels: str | None) -> None:
    """Change a pod's labels."""
    body = {"metadata": {"labels": labels}}
    pods.cluster.do(pods.kube.patch_pod(pods.namespace, name, body))


def test_a_watch_tells_what_came_after_a_version(pods: Pods) -> None:
    a = pods.create()
    version = pods.version()
    b = pods.create()
    relabel(pods, a.name, changed="1")
    pods.delete(b)
    watch = pods.watch(version)
    c = pods.create()  # told as it happens
    watch.until("ADDED", lambda pod: pod["metadata"]["name"] == c.name)
    assert watch.events == [
        ("ADDED", b.name),
        ("MODIFIED", a.name),
        ("DELETED", b.name),
        ("ADDED", c.name),
    ]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in watch.of_pods]
    assert versions == sorted(versions)
    assert min(versions) > version


def test_a_watch_resumes_without_gap_or_repetition(pods: Pods) -> None:
    first = pods.watch(pods.version())
    names = [pods.create().name for _ in range(3)]
    poll("three events", lambda: len(first.events) == 3)
    middle = int(first.of_pods[1]["object"]["metadata"]["resourceVersion"])
    second = pods.watch(middle)
    names.append(pods.create().name)
    second.until("ADDED", lambda pod: pod["metadata"]["name"] == names[3])
    assert second.events == [("ADDED", name) for name in names[2:]]


def test_a_deletion_carries_the_last_state(pods: Pods, node: PlayedNode) -> None:
    pod = pods.create()
    watch = pods.watch(pods.version())
    node.bind(pod.name)
    node.runs(pod.name)
    node.ends(pod.name, 3)
    pods.delete(pods.get(pod.name))
    last = watch.until("DELETED")
    assert last["metadata"]["uid"] == pod.uid
    assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    told = [e["object"]["metadata"]["resourceVersion"] for e in watch.of_pods]
    assert int(last["metadata"]["resourceVersion"]) > int(told[-2])


def test_a_selector_makes_pods_come_and_go(pods: Pods) -> None:
    pod = pods.create()
    watch = pods.watch(pods.version(), selector=f"{pods.selector},stage in (one,two)")
    for stage in ("one", "two", "three", "one"):
        relabel(pods, pod.name, stage=stage)
    poll("four events", lambda: len(watch.events) == 4)
    assert [kind for kind, _ in watch.events] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]


def test_a_list_equals_what_a_watch_has_told(pods: Pods, node: PlayedNode) -> None:
    watch = pods.watch(pods.version())
    made = [pods.create() for _ in range(6)]
    for pod in made[:4]:
        node.bind(pod.name)
        node.runs(pod.name)
    for pod in made[:2]:
        node.ends(pod.name)
        pods.delete(pod)
    pods.delete(made[5])
    relabel(pods, made[4].name, changed="1")
    page = pods.cluster.do(pods.kube.list_pods(pods.namespace, pods.selector, limit=100))
    listed = {pod.name: str(pod.resource_version) for pod in page.items}
    assert set(listed) == {pod.name for pod in made[2:5]}
    poll("the watch has told it all", lambda: watch.state == listed)


def test_a_bookmark_says_how_far_a_silent_watch_is(pods: Pods) -> None:
    """A server sends one about every minute, and one before the time of the watch is over."""
    watch = pods.watch(pods.version(), timeout=4)
    other = pods.create(labels={CASE: f"{pods.case}-unseen"})
    try:
        mark = watch.until("BOOKMARK", seconds=10)
    finally:
        pods.delete(other)
    assert mark["kind"] == "Pod"
    assert int(mark["metadata"]["resourceVersion"]) >= other.resource_version
    assert watch.events == []
    # It is a version to go on from.
    pod = pods.create()
    resumed = pods.watch(int(mark["metadata"]["resourceVersion"]))
    resumed.until("ADDED", lambda found: found["metadata"]["name"] == pod.name)


def test_a_watch_from_the_future_is_accepted_and_silent(pods: Pods) -> None:
    started = time.monotonic()
    watch = pods.watch(pods.version() + 1_000_000_000, timeout=1)
    pods.create()
    poll("the watch ends", lambda: watch.ended or watch.error, 10)
    assert watch.error is None
    assert time.monotonic() - started > 0.9
    assert watch.told == []
