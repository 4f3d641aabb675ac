"""What a launcher finds out about a pod's log, whatever the API server answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest

from kbroker.event import PodState
from kbroker.kube_client import ApiError
from kbroker.log_message import MOST_BYTES, LogAnswer, LogRequest
from kbroker.log_reading import LogReading
from tests.unit.launcher_scene import ATTEMPT, NAME, NOT_FOUND, REFUSED, UNAUTHORIZED, error, pod

REQUEST = LogRequest("prod", "default", "jobs", NAME, "uid-1", 100, "0f" * 16, 1)
DENIED = error(
    403,
    'pods "x" is forbidden: User "system:serviceaccount:jobs:kbroker-launcher" cannot get '
    'resource "pods/log" in API group "" in the namespace "jobs"',
    "Forbidden",
)
WAITS = error(400, 'container "base" in pod "x" is waiting to start: ContainerCreating')
RUNNING = pod(
    node="n", phase="Running", container={"running": {"startedAt": "2026-01-01T00:00:00Z"}}
)
DONE = pod(
    node="n",
    phase="Succeeded",
    container={"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}},
)
CRASHED = pod(
    node="n",
    phase="Failed",
    container={"terminated": {"exitCode": 3, "startedAt": "2026-01-01T00:00:00Z"}},
)
PULLING = pod(
    node="n", container={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
)
HANGS = object()


def events(*reasons: str, message: str = "m") -> bytes:
    items = [
        {"lastTimestamp": f"{n:05}", "reason": r, "message": message} for n, r in enumerate(reasons)
    ]
    return orjson.dumps({"items": items})


SCHEDULED = events("Scheduled")


class Api:
    """Answers each kind of request in one way; the log is what stands in a container's file."""

    def __init__(self, pod: Any, log: Any = b"", events: Any = SCHEDULED) -> None:
        self.answers = {"pod": pod, "events": events, "log": log}
        self.asked: list[tuple[Any, ...]] = []

    async def get_pod(self, namespace: str, name: str) -> bytes:
        return await self._answer("pod", namespace, name)

    async def pod_events(self, namespace: str, name: str, uid: str) -> bytes:
        return await self._answer("events", namespace, name, uid)

    async def pod_log(
        self, namespace: str, name: str, *, container: str, tail: int, limit: int
    ) -> AsyncGenerator[bytes, None]:
        text = await self._answer("log", namespace, name, container, tail)
        kept = b"".join(text.splitlines(keepends=True)[-tail:])[:limit]
        for start in range(0, len(kept), 65_536):
            yield kept[start : start + 65_536]

    async def _answer(self, kind: str, *what: Any) -> bytes:
        self.asked.append((kind, *what))
        answer = self.answers[kind]
        if answer is HANGS:
            await asyncio.sleep(60)
        if isinstance(answer, ApiError):
            raise answer
        return answer


async def told(api: Api, request: LogRequest = REQUEST, within: float = 5.0) -> LogAnswer:
    ends = asyncio.get_running_loop().time() + within
    return await LogReading(api).read(request, ends)


FOUND = [
    ("running", RUNNING, b"1\n2\n", LogAnswer(True, "1\n2\n", PodState.RUNNING)),
    ("done", DONE, b"1\n", LogAnswer(True, "1\n", PodState.SUCCEEDED)),
    (
        "failed",
        CRASHED,
        b"oh\n",
        LogAnswer(
            True, "oh\n", PodState.FAILED, "the command ended with exit code 3", ("Scheduled: m",)
        ),
    ),
    (
        "pending",
        PULLING,
        WAITS,
        LogAnswer(
            True,
            state=PodState.PENDING,
            why="the image of container base cannot be pulled: ImagePullBackOff: no such image",
            events=("Scheduled: m",),
        ),
    ),
    ("bytes", RUNNING, b"\xff\x00\x1b[1m", LogAnswer(True, "\ufffd\x00\x1b[1m", PodState.RUNNING)),
]


@pytest.mark.parametrize(
    ("found", "log", "answer"), [r[1:] for r in FOUND], ids=[r[0] for r in FOUND]
)
async def test_a_pod_that_is_there(found: bytes, log: Any, answer: LogAnswer) -> None:
    assert await told(Api(found, log)) == answer


NONE = [
    ("gone", NOT_FOUND, {}, False, []),
    ("another", pod(uid="uid-2"), {}, False, ["another pod has taken its name"]),
    ("not ours", pod(None), {}, None, ["the pod is not one of deployment 'prod'"]),
    (
        "another deployment's",
        pod(ATTEMPT.launch.changed(deployment="test").attempt(1)),
        {},
        None,
        ["the pod is not one of deployment 'prod'"],
    ),
    ("no cluster", REFUSED, {}, None, ["the Kubernetes API cannot be used: Connect call failed"]),
    ("token", UNAUTHORIZED, {}, None, ["the Kubernetes API refuses the launcher's credentials"]),
    ("500", error(500, "boom"), {}, None, ["the Kubernetes API answers 500: boom"]),
    ("garbage", b"[]", {}, None, ["the Kubernetes API sends no pod: Expected"]),
    (
        "gone, no events",
        NOT_FOUND,
        {"events": error(500, "boom")},
        False,
        ["its events cannot be read: the Kubernetes API answers 500: boom"],
    ),
    (
        "log denied",
        RUNNING,
        {"log": DENIED},
        True,
        [
            "its log cannot be read: the launcher has no permission to get pods/log in namespace "
            "'jobs': grant it, as config/kubernetes/launcher.yaml does"
        ],
    ),
    (
        "events denied",
        PULLING,
        {"events": DENIED},
        True,
        [
            "its events cannot be read: the launcher has no permission to list events in namespace "
            "'jobs': grant it, as config/kubernetes/launcher.yaml does"
        ],
    ),
    (
        "not started",
        CRASHED,
        {"log": WAITS},
        True,
        ["there is no log: the Kubernetes API answers 400"],
    ),
    (
        "gone meanwhile",
        DONE,
        {"log": NOT_FOUND},
        True,
        ["there is no log: the Kubernetes API answers 404"],
    ),
    ("no events", CRASHED, {"events": b"[]"}, True, ["its events cannot be read: Expected"]),
]


@pytest.mark.parametrize(
    ("found", "more", "exists", "notes"), [r[1:] for r in NONE], ids=[r[0] for r in NONE]
)
async def test_why_there_is_less(
    found: Any, more: Any, exists: bool | None, notes: list[str]
) -> None:
    answer = await told(Api(found, **more))
    assert answer.exists is exists
    assert answer.text == ""
    assert len(answer.notes) == len(notes)
    for said, expected in zip(answer.notes, notes, strict=True):
        assert said.startswith(expected)


async def test_nothing_is_told_of_a_pod_that_is_not_ours() -> None:
    api = Api(pod(None, phase="Running"), b"s3cret")
    answer = await told(api)
    assert answer.changed(notes=()) == LogAnswer()
    assert [kind for kind, *_ in api.asked] == ["pod"]


async def test_any_pod_of_that_name_where_no_uid_is_known() -> None:
    answer = await told(Api(pod(uid="uid-2", phase="Running"), b"1\n"), REQUEST.changed(uid=None))
    assert answer.text == "1\n"


@pytest.mark.parametrize("found", [RUNNING, DONE])
async def test_events_are_looked_for_only_where_the_log_does_not_say_it_all(found: bytes) -> None:
    """To list them is costly: the API server has no index of them."""
    api = Api(found, b"1\n")
    await told(api)
    assert [kind for kind, *_ in api.asked] == ["pod", "log"]


async def test_a_few_events_the_newest_last_each_in_one_short_line() -> None:
    api = Api(PULLING, events=events(*(f"r{n}" for n in range(30)), message=f"a\n{'b' * 5000}"))
    answer = await told(api)
    assert [event.partition(":")[0] for event in answer.events] == [f"r{n}" for n in range(20, 30)]
    assert all(len(event) <= 1000 and "\n" not in event for event in answer.events)


class TestWhatTakesTooLong:
    async def test_the_pod(self) -> None:
        answer = await told(Api(HANGS), within=0.05)
        assert answer == LogAnswer(notes=("the Kubernetes API did not answer in time (get pods)",))

    async def test_a_log_takes_nothing_away_from_what_is_known(self) -> None:
        answer = await told(Api(CRASHED, HANGS), within=0.05)
        assert (answer.exists, answer.state) == (True, PodState.FAILED)
        assert answer.events == ("Scheduled: m",)
        assert answer.notes == (
            "its log cannot be read: the Kubernetes API did not answer in time (get pods/log)",
        )

    async def test_events(self) -> None:
        answer = await told(Api(PULLING, events=HANGS), within=0.05)
        assert answer.state is PodState.PENDING
        assert answer.notes == (
            "its events cannot be read: the Kubernetes API did not answer in time (list events)",
        )


class TestLongLogs:
    async def test_the_last_lines(self) -> None:
        api = Api(RUNNING, b"".join(b"%d\n" % n for n in range(1000)))
        answer = await told(api, REQUEST.changed(lines=3))
        assert answer.text == "997\n998\n999\n"
        assert answer.notes == ()

    # So long that it takes one, two and three requests to get at the end.
    @pytest.mark.parametrize(("length", "requests"), [(200, 1), (1_000, 2), (5_000, 3)])
    async def test_the_end_of_it_and_never_more_than_fits(self, length: int, requests: int) -> None:
        line = b"x" * (length - 7)
        api = Api(RUNNING, b"".join(line + b"%6d\n" % n for n in range(10_000)))
        answer = await told(api, REQUEST.changed(lines=10_000))
        assert [kind for kind, *_ in api.asked] == ["pod", *["log"] * requests]
        lines = answer.text.splitlines()
        assert MOST_BYTES / 8 < len(answer.text) <= MOST_BYTES
        assert [int(line[-6:]) for line in lines] == list(range(10_000 - len(lines), 10_000))
        assert {len(line) for line in lines} == {length - 1}
        assert answer.notes == (
            f"not all that was asked for is shown: it is over {MOST_BYTES} bytes",
        )

    async def test_of_one_long_line_its_end(self) -> None:
        answer = await told(Api(RUNNING, b"a" * MOST_BYTES + b"b" * 10), REQUEST.changed(lines=1))
        assert answer.text == "a" * (MOST_BYTES - 10) + "b" * 10
        assert len(answer.notes) == 1

    async def test_a_line_without_end(self) -> None:
        answer = await told(Api(RUNNING, b"a" * (5 * MOST_BYTES)), REQUEST.changed(lines=9))
        assert answer.text == ""
        assert answer.notes == ("its last line is too long to be shown",)
