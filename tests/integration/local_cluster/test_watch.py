"""Watches: replay, selectors, bookmarks, resuming, and a history that is gone."""

from __future__ import annotations

import time

import pytest

from tests.integration.local_cluster.client import Client, Object, pod, waiting


def configuration(name: str) -> Object:
    """An object that nobody but the test changes."""
    return {"metadata": {"name": name}}


def version(client: Client) -> str:
    """The version of the present list."""
    return str(client.get("pods").json["metadata"]["resourceVersion"])


def test_replays_what_exists_and_follows(client: Client) -> None:
    client.create(configuration("a"), "configmaps")
    with client.watch("configmaps") as watch:
        assert watch.take(1) == [("ADDED", "a")]
        client.create(configuration("b"), "configmaps")
        client.patch("b", {"data": {"x": "1"}}, resource="configmaps")
        client.delete("a", resource="configmaps")
        assert watch.take(3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]


def test_resumes_from_any_version_without_gap_or_repetition(client: Client) -> None:
    start = version(client)
    for n in range(3):
        client.create(configuration(f"c{n}"), "configmaps")
    client.delete("c1", resource="configmaps")
    expected = [("ADDED", "c0"), ("ADDED", "c1"), ("ADDED", "c2"), ("DELETED", "c1")]
    with client.watch("configmaps", resourceVersion=start) as watch:
        events = watch.events(4)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == expected
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))
    for position, seen in enumerate(versions):
        with client.watch("configmaps", resourceVersion=seen, timeoutSeconds=1) as watch:
            if position < 3:
                assert watch.take(1) == [expected[position + 1]]


def test_only_its_namespace_and_resource(client: Client) -> None:
    with client.watch(resourceVersion=version(client)) as watch:
        Client(client.cluster).create(waiting(client.namespace))
        client.create(configuration("x"), "configmaps")
        client.create(waiting("mine"))
        assert watch.take(1) == [("ADDED", "mine")]


def test_object_that_leaves_the_selector_is_deleted_for_the_watcher(client: Client) -> None:
    with client.watch(
        "configmaps", resourceVersion=version(client), labelSelector="x in (1,2)"
    ) as watch:
        for number in ("0", "1", "2", "3"):
            content = {"metadata": {"name": "c", "labels": {"x": number}}}
            if number == "0":
                client.create(content, "configmaps")
            else:
                client.patch("c", content, resource="configmaps")
        assert watch.take(3) == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]


def test_field_selector(client: Client) -> None:
    with client.watch(resourceVersion=version(client), fieldSelector="metadata.name=b") as watch:
        client.create(waiting("a"))
        client.create(waiting("b"))
        assert watch.take(1) == [("ADDED", "b")]


def test_deleted_event_carries_a_newer_version(client: Client) -> None:
    made = client.create(configuration("c"), "configmaps")
    with client.watch("configmaps", resourceVersion=version(client)) as watch:
        client.delete("c", resource="configmaps")
        event = watch.events(1)[0]
    assert event["type"] == "DELETED"
    gone = event["object"]["metadata"]
    assert gone["uid"] == made["metadata"]["uid"]
    assert int(gone["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


def test_bookmarks_advance_with_other_resources(client: Client) -> None:
    start = version(client)
    with client.watch(resourceVersion=start, allowWatchBookmarks="true") as watch:
        client.create(configuration("x"), "configmaps")
        moved = watch.until(
            "BOOKMARK", lambda seen: int(seen["metadata"]["resourceVersion"]) > int(start)
        )
        assert moved["kind"] == "Pod"


def test_timeout_ends_with_a_bookmark(client: Client) -> None:
    began = time.monotonic()
    with client.watch(
        resourceVersion=version(client), allowWatchBookmarks="true", timeoutSeconds=1
    ) as watch:
        kinds = [event["type"] for event in watch]
    assert 0.9 < time.monotonic() - began < 3
    assert kinds[-1] == "BOOKMARK"


def test_no_bookmarks_unless_allowed(client: Client) -> None:
    with client.watch(resourceVersion=version(client), timeoutSeconds=1) as watch:
        assert list(watch) == []


def test_version_older_than_the_history(client: Client) -> None:
    start = version(client)
    client.create(waiting("a"))
    client.cluster.admin.post("/_local/compact", {})
    with client.watch(resourceVersion=start) as watch:
        events = list(watch)
    assert [event["type"] for event in events] == ["ERROR"]
    status = events[0]["object"]
    assert (status["code"], status["reason"], status["kind"]) == (410, "Expired", "Status")
    assert status["message"].startswith("too old resource version: ")
    with client.watch(resourceVersion=version(client)) as watch:
        client.create(waiting("b"))
        assert watch.take(1) == [("ADDED", "b")]


def test_version_above_the_servers_is_silent(client: Client) -> None:
    ahead = int(version(client)) + 1_000_000
    with client.watch(resourceVersion=ahead, timeoutSeconds=1) as watch:
        client.create(waiting("a"))
        assert list(watch) == []


def test_initial_events_are_refused(client: Client) -> None:
    answer = client.get("pods", watch="1", sendInitialEvents="true")
    assert answer.status == 422


@pytest.mark.parametrize(
    ("action", "ends"),
    [("drop", True), ("half_line", True), ("error410", True), ("garbage", False)],
)
def test_misbehaviour(client: Client, action: str, ends: bool) -> None:
    with client.watch(resourceVersion=version(client), allowWatchBookmarks="true") as watch:
        watch.events(1)
        client.cluster.admin.post("/_local/watches", {"action": action})
        lines = []
        while line := watch.response.readline():
            lines.append(line)
            if b"BOOKMARK" not in line and not ends:
                break
        odd = [line for line in lines if b"BOOKMARK" not in line]
    if action == "drop":
        assert odd == []
    elif action == "error410":
        assert b'"code":410' in odd[0]
    elif action == "half_line":
        assert not odd[-1].endswith(b"\n")
    else:
        assert not odd[0].startswith(b"{")


def test_silenced_watch_stays_open_without_a_byte(client: Client) -> None:
    with client.watch(
        resourceVersion=version(client), allowWatchBookmarks="true", seconds=1.0
    ) as watch:
        watch.events(1)
        client.cluster.admin.post("/_local/watches", {"action": "silence"})
        client.create(waiting("unseen"))
        seen: list[bytes] = []
        with pytest.raises(TimeoutError):
            seen.extend(iter(watch.response.readline, b""))
        assert not any(b"unseen" in line for line in seen)
    with client.watch(resourceVersion=version(client), allowWatchBookmarks="true") as fresh:
        assert fresh.events(1)[0]["type"] == "BOOKMARK"


def test_pods_life_as_a_watcher_sees_it(client: Client) -> None:
    with client.watch(resourceVersion=version(client)) as watch:
        client.create(pod("a", "sh", "-c", "exit 3"))
        phases = []
        for event in watch:
            phases.append(event["object"]["status"]["phase"])
            if phases[-1] == "Failed":
                break
    assert phases[0] == "Pending"
    assert [p for p, before in zip(phases, ["", *phases], strict=False) if p != before] in (
        ["Pending", "Running", "Failed"],
        ["Pending", "Failed"],
    )


@pytest.mark.parametrize("on", ["1", "true", "True"])
def test_switches_are_read_as_clients_send_them(client: Client, on: str) -> None:
    """Generation 36 of the official client writes True, 37 writes true."""
    answer = client.get("pods", watch=on, timeoutSeconds="1")
    assert answer.body == b""


@pytest.mark.parametrize("off", ["0", "false", "False"])
def test_switches_that_are_off(client: Client, off: str) -> None:
    assert client.get("pods", watch=off).json["kind"] == "PodList"
