"""The watcher's parts that need no server: error events, the plain queue, the table, checks."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from kbroker.event import Cause, PodEvent, PodState
from kbroker.event_sink import EventSink, QueueSink
from kbroker.kube_client import ApiError
from kbroker.kube_config import KubeConfig
from kbroker.naming import annotations_for, pod_name
from kbroker.pod import Pod, Spec
from kbroker.pod_checks import PodChecks
from kbroker.pod_table import PodTable
from kbroker.settings import WatcherSettings
from kbroker.task import Launch, TaskKey
from kbroker.watcher import KubernetesJobWatcher

ATTEMPT = Launch("kbroker", TaskKey("dag", "task", "run"), "launch-1").attempt(1)
NAME = pod_name(ATTEMPT)


def event(state: PodState = PodState.PENDING, version: int = 1, **values: Any) -> PodEvent:
    made = PodEvent(ATTEMPT, "default", "jobs", NAME, state, uid="u1", resource_version=version)
    return made.changed(**values)


def watcher(into: Any) -> KubernetesJobWatcher:
    return KubernetesJobWatcher("jobs", into, None, "w", config=KubeConfig())


def pod(phase: str = "Running", version: int = 1, **metadata: Any) -> Pod:
    annotations = annotations_for(ATTEMPT, "exec-1")
    body = {"name": NAME, "uid": "u1", "resourceVersion": str(version), "annotations": annotations}
    return Pod.from_dict({"metadata": {**body, **metadata}, "status": {"phase": phase}})


def drained(from_queue: queue.Queue[PodEvent]) -> list[PodEvent]:
    return [from_queue.get_nowait() for _ in range(from_queue.qsize())]


@pytest.mark.parametrize(
    "status",
    [{"code": 410, "reason": "Expired"}, {"code": 410}, {"reason": "Gone"}],
)
@pytest.mark.parametrize("field", ["object", "raw_object"])
def test_a_forgotten_version_asks_for_a_list(status: dict[str, Any], field: str) -> None:
    assert watcher(queue.Queue()).process_error({"type": "ERROR", field: status}) == "0"


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ({"object": {"code": 500, "message": "etcd is down"}}, 500, "etcd is down"),
        ({"object": {"code": 403, "reason": "Forbidden"}}, 403, "Forbidden"),
        ({"object": "what"}, 0, "the watch failed"),
        ({}, 0, "the watch failed"),
    ],
)
def test_any_other_error_resumes(found: dict[str, Any], code: int, words: str) -> None:
    with pytest.raises(ApiError, match=words) as raised:
        watcher(queue.Queue()).process_error(found)
    assert raised.value.status == code


def test_process_status_puts_a_pod_event() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    one = watcher(into)
    one.process_status("ADDED", pod())
    one.process_status("DELETED", pod(version=2))
    assert [(e.state, e.resource_version) for e in drained(into)] == [
        (PodState.RUNNING, 1),
        (PodState.FAILED, 2),
    ]
    assert len(one.table) == 0


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {}},
        {"annotations": {**annotations_for(ATTEMPT, "e"), "kbroker/attempt": "x"}},
        {"annotations": {**annotations_for(ATTEMPT, "e"), "kbroker/deployment": "other"}},
        {"name": "a-copy"},
    ],
    ids=["without annotations", "unreadable", "another deployment", "a copy"],
)
def test_a_pod_without_our_identity_is_counted_once(metadata: dict[str, Any]) -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    one = watcher(into)
    for version in (1, 2):
        one.process_status("MODIFIED", pod(version=version, **metadata))
    assert drained(into) == []
    assert one.strangers == 1


async def test_a_queue_gets_each_state_once() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    sink = QueueSink(into)
    assert isinstance(sink, EventSink)
    runs, ended = event(PodState.RUNNING, 2), event(PodState.SUCCEEDED, 3)
    for one in (event(), runs, runs, ended):
        sink.put(one)
    sink.put(event(PodState.SUCCEEDED, 4), gone=True)
    assert drained(into) == [event(), runs, ended]
    assert await sink.picture() == {}


async def test_an_event_that_says_nothing_new_is_not_put() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    one = watcher(into)

    def bound(phase: str, version: int) -> Pod:
        return msgspec.structs.replace(pod(phase, version), spec=Spec(node_name="n"))

    await one.events([("ADDED", pod("Pending", 1)), ("MODIFIED", bound("Pending", 2))])
    await one.events([("MODIFIED", bound("Running", version)) for version in (3, 4, 5)])
    await one.events([("MODIFIED", bound("Succeeded", 6)), ("MODIFIED", bound("Succeeded", 7))])
    assert [e.resource_version for e in drained(into)] == [1, 2, 3, 6]
    await one.events([("DELETED", bound("Succeeded", 8))])
    assert len(one.table) == 0
    assert one.resource_version == "8"


async def test_a_list_puts_what_it_shows_whether_it_is_news_or_not() -> None:
    """Redis may have lost it."""

    class Recorded(QueueSink):
        def put(self, event: PodEvent, *, gone: bool = False) -> None:
            versions.append(event.resource_version)

    versions: list[int] = []
    one = watcher(Recorded(None))
    await one.events([("ADDED", pod(version=1))])
    await one.relisting(False)
    await one.page([pod(version=1)])
    assert versions == [1, 1]


async def test_a_queue_hears_again_after_versions_fell() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    sink = QueueSink(into)
    sink.put(event(version=5))
    await sink.relisting(True)
    other = event(PodState.RUNNING, 5)
    sink.put(other)
    assert drained(into) == [event(version=5), other]


async def test_a_pod_with_an_old_ones_name_comes_after_the_old_ones_end() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    one = watcher(into)
    one.process_status("ADDED", pod())
    await one.relisting(False)
    await one.page([pod(version=9, uid="u2")])
    await one.listed(9)
    assert [(e.uid, e.cause) for e in drained(into)] == [
        ("u1", None),
        ("u1", Cause.VANISHED),
        ("u2", None),
    ]
    assert len(one.table) == 1


async def test_a_list_that_breaks_off_counts_for_nothing() -> None:
    into: queue.Queue[PodEvent] = queue.Queue()
    one = watcher(into)
    one.process_status("ADDED", pod())
    await one.relisting(False)
    await one.page([pod()])
    await one.relisting(False)
    await one.listed(9)
    last = drained(into)[-1]
    assert (last.uid, last.cause, last.resource_version) == ("u1", Cause.VANISHED, 9)


class Publisher:
    """Answers a check as Redis would, and remembers what it was asked."""

    def __init__(self) -> None:
        self.condemned: list[tuple[PodEvent, Cause, str]] = []
        self.swept: list[str] = []
        self.alive: set[str] = set()
        self.reply = "applied"

    async def condemn(self, verdicts: Sequence[tuple[PodEvent, Cause, str]]) -> list[str]:
        self.condemned += verdicts
        return [self.reply] * len(verdicts)

    async def owners(self, pods: Sequence[tuple[PodEvent, str]]) -> list[tuple[str, bool]]:
        return [(executor, executor in self.alive) for _, executor in pods]

    async def sweep(self, pods: Sequence[tuple[PodEvent, str]], reason: str) -> list[str]:
        self.swept += [executor for _, executor in pods]
        return ["asked"] * len(pods)


class Checked:
    """A table, its checks, and a clock."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.table = PodTable()
        self.publisher = Publisher()
        settings = WatcherSettings(pending_timeout=600, fatal_waiting_grace=30, orphan_after=1000)
        self.checks = PodChecks(
            self.table,
            self.publisher,  # type: ignore[arg-type]
            settings,
            lambda: self.now,
        )

    async def after(self, seconds: float) -> None:
        self.now += seconds
        await self.checks.check()


PULL = {"cause": Cause.IMAGE_PULL, "message": "no such image"}


async def test_condemned_once_for_a_cause_and_a_version() -> None:
    seen = Checked()
    seen.table.note(event(**PULL), "e", seen.now)
    await seen.after(29)
    assert seen.publisher.condemned == []
    await seen.after(1)
    await seen.after(1)
    assert seen.publisher.condemned == [(event(**PULL), Cause.IMAGE_PULL, "no such image")]
    seen.table.note(event(version=2, **PULL), "e", seen.now)
    await seen.after(1)
    assert [judged.resource_version for judged, _, _ in seen.publisher.condemned] == [1, 2]


async def test_a_verdict_that_found_no_record_is_passed_again() -> None:
    seen = Checked()
    seen.publisher.reply = "unknown"
    seen.table.note(event(**PULL), "e", seen.now)
    await seen.after(30)
    await seen.after(1)
    assert len(seen.publisher.condemned) == 2


async def test_the_grace_begins_anew_when_the_reason_goes_away() -> None:
    seen = Checked()
    seen.table.note(event(**PULL), "e", seen.now)
    await seen.after(20)
    seen.table.note(event(version=2), "e", seen.now)
    seen.table.note(event(version=3, **PULL), "e", seen.now)
    await seen.after(29)
    assert seen.publisher.condemned == []
    await seen.after(1)
    assert len(seen.publisher.condemned) == 1


@pytest.mark.parametrize("state", [PodState.RUNNING, PodState.SUCCEEDED])
async def test_a_pod_that_started_or_is_gone_is_not_judged(state: PodState) -> None:
    seen = Checked()
    seen.table.note(event(**PULL), "e", seen.now)
    seen.table.note(event(state, version=2), "e", seen.now)
    await seen.after(700)
    seen.table.note(event(**PULL), "e", seen.now)
    seen.table.drop(NAME)
    await seen.after(700)
    assert seen.publisher.condemned == []


async def test_orphans_are_counted_from_the_later_of_first_sight_and_last_life() -> None:
    seen = Checked()
    seen.table.note(event(PodState.FAILED), "e", seen.now)
    seen.publisher.alive = {"e"}
    await seen.after(5000)
    seen.publisher.alive = set()
    await seen.after(100)  # first sight of its absence
    await seen.after(999)
    assert seen.publisher.swept == []
    await seen.after(100)
    assert seen.publisher.swept == ["e"]
    await seen.after(59)
    assert seen.publisher.swept == ["e"]
    await seen.after(100)  # it still exists: asked for again
    assert seen.publisher.swept == ["e", "e"]


async def test_an_executor_that_comes_back_keeps_its_pods() -> None:
    seen = Checked()
    seen.table.note(event(PodState.FAILED), "e", seen.now)
    await seen.after(100)
    seen.publisher.alive = {"e"}
    await seen.after(900)
    seen.publisher.alive = set()
    await seen.after(100)
    await seen.after(900)
    assert seen.publisher.swept == []


async def test_a_pod_of_unknown_executor_waits_for_a_list_that_names_it() -> None:
    seen = Checked()
    seen.table.note(event(PodState.FAILED), "", seen.now)
    for _ in range(3):
        await seen.after(1000)
    assert seen.publisher.swept == []
