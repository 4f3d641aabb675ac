"""Every answer of the API server, and what becomes of the message."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import fakeredis
import fakeredis.aioredis
import orjson
import pytest

from kbroker.drain_loop import drain_loop
from kbroker.errors import BrokerUnavailableError
from kbroker.event import Cause, PodState, Started
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_reply import Refused
from kbroker.launcher import Launcher
from kbroker.lease import Lease
from kbroker.message import DeleteMessage, LaunchMessage, Removal
from kbroker.pace import Lane
from kbroker.permission import NoRoom, Permissions
from kbroker.queue_entry import QueueEntry, Unfinished
from kbroker.record_scripts import launch_item
from kbroker.redis_client import run
from kbroker.result_stream import ResultStream
from kbroker.rooms import Rooms
from kbroker.shared_pace import SharedPace
from kbroker.task import Launch, TaskKey
from kbroker.work_item import Bury, Done, Leave, Outcome, Park, Parking, Report, dead
from tests.records import Records

from .launcher_scene import (
    ATTEMPT,
    CONFLICT,
    EXISTS,
    LATE,
    LOST,
    NAME,
    NOT_FOUND,
    NOW,
    QUOTA,
    RBAC,
    REFUSED,
    UNAUTHORIZED,
    Clock,
    Kube,
    Scene,
    delete_message,
    error,
    item,
    launch_message,
    pod,
)

MINE = pod()
OTHER_ATTEMPT = pod(ATTEMPT.next())
OTHER_DEPLOYMENT = pod(Launch("test", ATTEMPT.launch.key, "launch-1").attempt(1))
DONE = pod(
    phase="Succeeded",
    node="n",
    container={"terminated": {"exitCode": 0, "startedAt": "2026-11-23T06:00:00Z"}},
)


async def launched(scene: Scene, message: LaunchMessage | None = None, **values: Any) -> Outcome:
    message = message or launch_message()
    return await scene.creation.launch(item(message, **values), message, scene.permission())


# Creating: the answers, the outcome, and the requests that led to it.

CREATED = [
    ("created", {"create": [MINE]}, PodState.PENDING, "create"),
    ("reply lost, then ours", {"create": [LOST, EXISTS], "get": [MINE]}, PodState.PENDING, None),
    ("ours, and over already", {"create": [EXISTS], "get": [DONE]}, PodState.SUCCEEDED, None),
    ("late, but ours exists", {"create": [LATE], "get": [MINE]}, PodState.PENDING, None),
    ("late, then granted again", {"create": [LATE, MINE], "get": [NOT_FOUND]}, "pending", None),
    ("busy, then created", {"create": [error(429), MINE]}, PodState.PENDING, None),
    ("connection refused twice", {"create": [REFUSED, REFUSED, MINE]}, PodState.PENDING, None),
    ("500, 502, 503, 504", {"create": [*map(error, (500, 502, 503, 504)), MINE]}, "pending", None),
    ("modified meanwhile", {"create": [error(409, "modified", "Conflict"), MINE]}, "pending", None),
    ("a look that fails once", {"create": [EXISTS], "get": [error(500), MINE]}, "pending", None),
]


@pytest.mark.parametrize(
    ("answers", "state"), [row[1:3] for row in CREATED], ids=[r[0] for r in CREATED]
)
async def test_a_pod_comes_of_it(answers: dict[str, Any], state: str) -> None:
    scene = Scene(**{kind: list(given) for kind, given in answers.items()})
    outcome = await launched(scene)
    assert isinstance(outcome, Report)
    assert (outcome.event.state, outcome.event.uid) == (state, "uid-1")
    assert outcome.event.resource_version == 7
    assert len({m["metadata"]["name"] for _, m, _ in scene.kube.asked("create")}) == 1


FAILS = [
    ("bad request", {"create": [error(400, "bad")]}, Cause.ADMISSION, "bad"),
    ("no namespace", {"create": [error(404, 'namespaces "x" not found')]}, Cause.ADMISSION, "x"),
    ("too large", {"create": [error(413, "too large")]}, Cause.ADMISSION, "too large"),
    ("invalid", {"create": [error(422, "spec: Required")]}, Cause.ADMISSION, "spec: Required"),
    ("admission", {"create": [error(403, "denied by hook")]}, Cause.ADMISSION, "denied by hook"),
    ("not ours", {"create": [EXISTS], "get": [pod(None)]}, Cause.ADMISSION, "did not create"),
    (
        "another attempt",
        {"create": [EXISTS], "get": [OTHER_ATTEMPT]},
        Cause.ADMISSION,
        "attempt 2 (uid uid-1)",
    ),
    (
        "another deployment",
        {"create": [EXISTS], "get": [OTHER_DEPLOYMENT]},
        Cause.ADMISSION,
        "of deployment 'test'",
    ),
]


@pytest.mark.parametrize(
    ("answers", "cause", "words"), [r[1:] for r in FAILS], ids=[r[0] for r in FAILS]
)
async def test_it_fails_at_once(answers: dict[str, Any], cause: Cause, words: str) -> None:
    scene = Scene(**{kind: list(given) for kind, given in answers.items()})
    outcome = await launched(scene)
    assert isinstance(outcome, Report)
    event = outcome.event
    assert (event.state, event.started, event.uid) == (PodState.FAILED, Started.NEVER, None)
    assert event.cause is cause
    assert words in (event.message or "")
    assert "secret-command" not in event.encode().decode()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"imagee": "x"}, "unknown key 'imagee'"),
        ({"pod_template_file": "/nowhere.yaml"}, "pod template /nowhere.yaml"),
        ({"pod_override": {"spec": {"containers": "x"}}}, "containers"),
    ],
)
async def test_an_unusable_configuration_asks_the_api_nothing(
    config: dict[str, Any], words: str
) -> None:
    scene = Scene(create=[MINE])
    outcome = await launched(scene, launch_message(executor_config=config))
    assert isinstance(outcome, Report)
    assert outcome.event.cause is Cause.CONFIG_ERROR
    assert words in (outcome.event.message or "")
    assert scene.kube.requests == []


WAITS = [
    ("quota", {"create": [QUOTA]}, Cause.QUOTA, "exceeded quota: q", False),
    ("busy for long", {"create": [error(429, retry_after=25)]}, Cause.THROTTLED, "busy", False),
    ("down for long", {"create": [REFUSED]}, Cause.UNREACHABLE, "Connect call failed", False),
    ("silent for long", {"create": [LOST]}, Cause.UNREACHABLE, "disconnected", True),
    ("failing for long", {"create": [error(500, "etcd")]}, Cause.UNREACHABLE, "etcd", True),
    ("late twice", {"create": [LATE], "get": [NOT_FOUND]}, Cause.ADMISSION, "clocks", False),
    ("cannot look", {"create": [EXISTS], "get": [error(500, "etcd")]}, "unreachable", "etcd", True),
    ("just deleted", {"create": [EXISTS], "get": [NOT_FOUND]}, "unreachable", "deleted", True),
]


@pytest.mark.parametrize(
    ("answers", "cause", "words", "doubt"), [r[1:] for r in WAITS], ids=[r[0] for r in WAITS]
)
async def test_it_waits_and_says_why(
    answers: dict[str, Any], cause: Cause, words: str, doubt: bool
) -> None:
    scene = Scene(**{kind: list(given) for kind, given in answers.items()})
    outcome = await launched(scene)
    assert isinstance(outcome, Park)
    assert outcome.item == launch_item(ATTEMPT)
    event = outcome.event
    assert event is not None
    assert (event.state, event.cause) == (PodState.WAITING, cause)
    assert words in (event.message or "")
    assert "(waiting since 2027-01-15T" in (event.message or "")
    assert bool(outcome.parking.maybe_until) is doubt
    assert scene.clock.now - 1000.0 <= 30.0


async def test_no_create_outlives_its_permission() -> None:
    scene = Scene(create=[LOST])
    scene.kube.took = 9.0  # every request runs into a timeout
    message = launch_message()
    outcome = await scene.creation.launch(item(message), message, scene.permission(12.0))
    timeouts = [timeout for _, _, timeout in scene.kube.asked("create")]
    assert timeouts[0] == 10.0
    assert 0 < timeouts[1] <= 3.0
    assert len(timeouts) == 2
    assert isinstance(outcome, Park)
    assert outcome.parking.maybe_until == NOW + 12_000


async def test_a_permission_that_is_over_sends_nothing() -> None:
    scene = Scene(create=[MINE])
    message = launch_message()
    outcome = await scene.creation.launch(item(message), message, scene.permission(0.0))
    assert isinstance(outcome, Park)
    assert scene.kube.requests == []


@pytest.mark.parametrize("deliveries", [1, 2])
async def test_failed_needs_proof_after_a_request_without_an_answer(deliveries: int) -> None:
    # The request that got no answer may still create the pod: absence proves nothing yet.
    first = [LOST] if deliveries == 1 else []
    scene = Scene(create=[*first, error(400, "bad")], get=[NOT_FOUND])
    outcome = await launched(scene, deliveries=deliveries)
    assert isinstance(outcome, Park)
    assert outcome.parking.maybe_until == NOW + 30_000
    assert "may still create the pod: bad" in ((outcome.event and outcome.event.message) or "")
    assert scene.clock.now + outcome.delay > 1030.0
    # Once that moment has passed, it does.
    scene.clock.now += outcome.delay
    final = await launched(scene, parking=outcome.parking)
    assert isinstance(final, Report)
    assert (final.event.state, final.event.cause) == (PodState.FAILED, Cause.ADMISSION)


async def test_a_pod_found_after_a_permanent_answer_wins() -> None:
    scene = Scene(create=[LOST, error(403, "namespace is being terminated")], get=[MINE])
    outcome = await launched(scene)
    assert isinstance(outcome, Report)
    assert outcome.event.uid == "uid-1"


async def test_parking_backs_off_and_remembers_since_when() -> None:
    scene = Scene(create=[QUOTA])
    # Its pod may exist: nobody else finds that out on its behalf.
    parking, delays, texts = Parking(maybe_until=1), [], set()
    for _ in range(9):
        outcome = await launched(scene, parking=parking)
        assert isinstance(outcome, Park)
        parking = outcome.parking
        delays.append(outcome.delay)
        texts.add(outcome.event and outcome.event.message)
        scene.clock.now += outcome.delay
    assert parking.times == 9
    assert 0.5 <= delays[0] <= 1.0
    assert all(30.0 <= delay <= 60.0 for delay in delays[6:])
    assert len(texts) == 1  # an unchanged reason is not told twice


@pytest.mark.parametrize(
    ("create_before", "get", "expected"),
    [
        (0, [NOT_FOUND], PodState.FAILED),
        (NOW - 1, [NOT_FOUND], PodState.FAILED),
        (NOW - 1, [MINE], PodState.PENDING),
        (NOW + 5_000, [NOT_FOUND], PodState.WAITING),
        (NOW + 5_000, [MINE], PodState.PENDING),
    ],
)
async def test_expired(create_before: int, get: list[Any], expected: PodState) -> None:
    scene = Scene(get=get)
    message = launch_message(expires_at=NOW - 1_000)
    refused = Refused("expired", create_before, NOW)
    outcome = await scene.creation.launch(item(message), message, refused)
    assert isinstance(outcome, Park | Report)
    assert outcome.event is not None
    assert outcome.event.state is expected
    if expected is PodState.FAILED:
        assert outcome.event.cause is Cause.EXPIRED
        assert "waited 61.0 s" in (outcome.event.message or "")
        assert "limit 60.0 s" in (outcome.event.message or "")
    assert scene.kube.asked("create") == []


@pytest.mark.parametrize("why", ["absent", "withdrawn", "final", "attempt", "launched", "dead"])
async def test_without_permission_nothing_is_created(why: str) -> None:
    scene = Scene()
    message = launch_message()
    assert await scene.creation.launch(item(message), message, Refused(why)) == Done()
    assert scene.kube.requests == []


# Pace.


async def test_retry_after_is_obeyed_and_told_to_all() -> None:
    scene = Scene(create=[error(429, retry_after=3), MINE])
    assert isinstance(await launched(scene), Report)
    assert scene.pace.told == [3]
    assert 3.0 <= sum(scene.clock.slept) <= 3.2


async def test_a_short_pause_of_others_is_kept() -> None:
    scene = Scene(create=[MINE], pause=2.0)
    assert isinstance(await launched(scene), Report)
    assert 2.0 <= sum(scene.clock.slept) <= 2.1


async def test_a_long_pause_of_others_parks() -> None:
    scene = Scene(create=[MINE], pause=25.0)
    outcome = await launched(scene)
    assert isinstance(outcome, Park)
    assert outcome.delay >= 25.0
    assert outcome.event is not None
    assert outcome.event.cause is Cause.THROTTLED
    assert scene.kube.requests == []


async def test_every_try_waits_for_its_turn() -> None:
    scene = Scene(create=[error(429, retry_after=1), error(503), LOST, MINE])
    assert isinstance(await launched(scene), Report)
    assert scene.pace.asked == [Lane.CREATE] * 4
    assert scene.pace.told == [1, None]
    assert scene.pace.finished == 1


async def test_what_has_no_turn_in_time_says_that_the_api_is_busy() -> None:
    scene = Scene(create=[MINE])
    scene.pace.closed = {Lane.CREATE}
    outcome = await launched(scene)
    assert isinstance(outcome, Park)
    assert outcome.event is not None
    assert outcome.event.cause is Cause.THROTTLED
    assert "the Kubernetes API is busy: it asked all launchers" in (outcome.event.message or "")
    assert scene.kube.requests == []


async def test_requests_that_get_no_answer_for_long_are_a_complaint() -> None:
    scene = Scene(create=[MINE])

    async def ask(took: float) -> None:
        """Eight requests at once, whose answers come, or fail to come, together."""
        ends = scene.clock.now + took

        async def request(_timeout: float) -> bytes:
            await asyncio.sleep(0)
            scene.clock.now = max(scene.clock.now, ends)
            if took == 10.0:
                raise error(0, "no answer in time", "timeout")
            return MINE

        one = partial(scene.calls.run, request, lane=Lane.CREATE, deadline=ends)
        await asyncio.gather(*(one() for _ in range(8)), return_exceptions=True)

    for _ in range(100):
        await ask(0.05)
    assert not scene.pace.complaints
    for _ in range(5):
        await ask(10.0)
    assert scene.pace.complaints == 1


@pytest.mark.parametrize("removal", list(Removal))
async def test_removals_yield_to_launches(removal: Removal) -> None:
    scene = Scene()
    scene.pace.closed = {Lane.REMOVE}
    message = delete_message(removal=removal)
    outcome = await scene.removal.remove(item(message), message, NOW)
    assert isinstance(outcome, Park)
    assert 1.0 <= outcome.delay <= 5.0
    assert outcome.parking == Parking()  # it has not failed: its next wait is no longer for that
    assert scene.kube.requests == []


async def test_a_throttled_removal_keeps_no_launch_waiting() -> None:
    scene = Scene(release=[error(429, retry_after=2), FREE])
    message = delete_message()
    outcome = await scene.removal.remove(item(message), message, NOW)
    assert isinstance(outcome, Park)
    assert outcome.delay >= 2.0
    assert scene.kube.kinds() == ["release"]
    assert scene.pace.told == [2]


# The launcher's own credentials.


async def test_a_token_that_ended_is_read_anew() -> None:
    scene = Scene(create=[UNAUTHORIZED, MINE])
    assert isinstance(await launched(scene), Report)
    assert scene.kube.reloads == 1
    assert scene.identity.refusal == ""


async def test_many_refused_requests_renew_once() -> None:
    scene = Scene(create=[lambda: MINE if scene.kube.reloads else UNAUTHORIZED])
    outcomes = await asyncio.gather(*(launched(scene) for _ in range(20)))
    assert all(isinstance(outcome, Report) for outcome in outcomes)
    assert scene.kube.reloads == 1


@pytest.mark.parametrize("refusal", [UNAUTHORIZED, RBAC])
async def test_refused_credentials_make_it_wait_unready_until_they_are_good(
    refusal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(create=[refusal])
    scene.kube.denied = ["no permission", "no permission", "no permission", ""]
    changes: list[bool] = []
    scene.identity._changed = changes.append
    outcome = await launched(scene)
    assert isinstance(outcome, Leave)
    assert outcome.event is not None
    assert outcome.event.state is PodState.WAITING
    assert "launcher is not ready" in (outcome.event.message or "")
    assert scene.identity.refusal == "no permission"
    for _ in range(100):
        await asyncio.sleep(0)
    assert scene.identity.refusal == ""
    assert changes == [False, True]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert scene.kube.reloads == 4


async def test_another_namespace_without_permission_fails_only_its_own_task() -> None:
    scene = Scene(create=[RBAC])
    outcome = await launched(scene, launch_message(namespace="other"))
    assert isinstance(outcome, Report)
    assert outcome.event.cause is Cause.ADMISSION
    assert scene.identity.refusal == ""


async def test_refused_after_a_request_without_an_answer_remembers_it() -> None:
    scene = Scene(create=[LOST, UNAUTHORIZED])
    scene.kube.denied = ["no permission"]
    outcome = await launched(scene)
    await scene.identity.close()
    assert isinstance(outcome, Park)
    assert outcome.parking.maybe_until == NOW + 30_000


# Removing.

RUNNING = pod(
    node="n", phase="Running", container={"running": {"startedAt": "2026-11-23T06:00:00Z"}}
)
PULLING = pod(node="n", version=8, container={"waiting": {"reason": "ImagePullBackOff"}})
BOUND = pod(node="n", version=8)
TERMINATED = {"deletionTimestamp": "2026-11-23T06:00:00Z", "deletionGracePeriodSeconds": 0}
STOP_8 = {
    "metadata": {"uid": "uid-1", "resourceVersion": "8"},
    "spec": {"activeDeadlineSeconds": 1},
}
STOP = {"removal": Removal.STOP}
KEPT = {"removal": Removal.RELEASE}
# What a release answers.
FREE = pod(node="n", phase="Succeeded", version=9)
HELD = pod(finalizers=["example.com/audit"], **TERMINATED)
DELETED = pod(**TERMINATED)
ANOTHER = error(422, 'Pod "x" is invalid: metadata.uid: Invalid value: "y": field is immutable')
OTHER_POD = pod(uid="uid-2")
REMOVED = ["release", "delete"]
EARLY = {"not_before": NOW + 10_000}
NAMELESS = {"name": NAME, "uid": "uid-1"}

REMOVALS: list[tuple[str, dict[str, Any], dict[str, Any], type, list[str]]] = [
    ("deleted", {}, {"release": [FREE], "delete": [b""]}, Done, REMOVED),
    ("gone", {}, {"release": [NOT_FOUND]}, Done, ["release"]),
    ("gone meanwhile", {}, {"release": [FREE], "delete": [NOT_FOUND]}, Done, REMOVED),
    ("only held", {}, {"release": [DELETED]}, Done, ["release"]),
    ("held by others too", {}, {"release": [HELD], "delete": [b""]}, Done, REMOVED),
    ("another uid", {}, {"release": [ANOTHER], "get": [OTHER_POD]}, Done, ["release", "get"]),
    (
        "another uid meanwhile",
        {},
        {"release": [FREE], "delete": [CONFLICT], "get": [OTHER_POD]},
        Done,
        [*REMOVED, "get"],
    ),
    (
        "retried",
        {},
        {"release": [error(500), FREE], "delete": [error(500), LOST, b""]},
        Done,
        ["release", *REMOVED * 3],
    ),
    (
        "judged state over, finished",
        {"resource_version": 7},
        {"release": [CONFLICT, FREE], "delete": [b""], "get": [DONE]},
        Done,
        ["release", "get", *REMOVED],
    ),
    (
        "judged state over, runs",
        {"resource_version": 7},
        {"release": [CONFLICT, FREE], "get": [RUNNING]},
        Done,
        ["release", "get"],
    ),
    (
        "changed after its release",
        {"resource_version": 7},
        {"release": [FREE], "delete": [CONFLICT], "get": [RUNNING]},
        Done,
        [*REMOVED, "get"],
    ),
    (
        "changing for ever",
        {},
        {"release": [CONFLICT], "get": [DONE]},
        Park,
        ["release", "get"] * 4,
    ),
    ("api down", {}, {"release": [REFUSED]}, Park, []),
    ("refused for good", {}, {"release": [error(403, "denied by hook")]}, Bury, ["release"]),
    ("released", KEPT, {"release": [FREE]}, Done, ["release"]),
    ("released, gone", KEPT, {"release": [NOT_FOUND]}, Done, ["release"]),
    ("released, another uid", KEPT, {"release": [ANOTHER]}, Done, ["release"]),
    ("released, early", {**KEPT, **EARLY}, {}, Park, []),
    ("released, api down", KEPT, {"release": [REFUSED]}, Park, []),
    ("early, gone", EARLY, {"get": [NOT_FOUND]}, Done, ["get"]),
    ("early, finished", EARLY, {"get": [DONE]}, Park, ["get"]),
    ("early, runs", EARLY, {"get": [RUNNING], "patch": [b"{}"]}, Park, ["get", "patch"]),
    ("early, unbound", EARLY, {"get": [MINE], "patch": [b"{}"]}, Park, ["get", "patch"]),
    ("early, foreign", EARLY, {"get": [OTHER_DEPLOYMENT]}, Done, ["get"]),
    ("stop, gone", STOP, {"get": [NOT_FOUND]}, Done, ["get"]),
    ("stop, another uid", STOP, {"get": [pod(uid="uid-2")]}, Done, ["get"]),
    ("stop, foreign", STOP, {"get": [OTHER_DEPLOYMENT]}, Done, ["get"]),
    ("stop, finished", STOP, {"get": [DONE]}, Done, ["get"]),
    ("stop, bound", STOP, {"get": [BOUND], "patch": [b"{}"]}, Done, ["get", "patch"]),
    ("stop, runs", STOP, {"get": [RUNNING], "patch": [b"{}"]}, Done, ["get", "patch"]),
    (
        "stop, unbound",
        STOP,
        {"get": [MINE], "release": [FREE], "delete": [b""]},
        Done,
        ["get", *REMOVED],
    ),
    (
        "stop, bound meanwhile",
        STOP,
        {"get": [MINE, BOUND], "release": [CONFLICT], "patch": [b"{}"]},
        Done,
        ["get", "release", "get", "patch"],
    ),
    (
        "stop, early, unbound",
        {**STOP, **EARLY},
        {"get": [MINE], "patch": [b"{}"]},
        Park,
        ["get", "patch"],
    ),
    (
        "stop, judged waiting, started since",
        {**STOP, "resource_version": 5},
        {"get": [RUNNING]},
        Done,
        ["get"],
    ),
    (
        "stop, judged waiting, still waiting",
        {**STOP, "resource_version": 5},
        {"get": [PULLING], "patch": [b"{}"]},
        Done,
        ["get", "patch"],
    ),
]


@pytest.mark.parametrize(
    ("values", "answers", "expected", "requests"),
    [row[1:] for row in REMOVALS],
    ids=[row[0] for row in REMOVALS],
)
async def test_removal(
    values: dict[str, Any], answers: dict[str, Any], expected: type, requests: list[str]
) -> None:
    scene = Scene(**{kind: list(given) for kind, given in answers.items()})
    message = delete_message(**values)
    outcome = await scene.removal.remove(item(message), message, NOW)
    assert isinstance(outcome, expected)
    if requests:
        assert scene.kube.kinds() == requests
    for asked in (*scene.kube.asked("release"), *scene.kube.asked("delete")):
        assert asked["uid"] == "uid-1"
    if isinstance(outcome, Park):
        assert outcome.event is None
        assert outcome.item == f"{message.removal}:uid-1"
    if values == EARLY and isinstance(outcome, Park):
        assert 10.0 < outcome.delay < 11.0


async def test_a_stopped_pod_says_what_it_was_stopped_for() -> None:
    scene = Scene(get=[BOUND], patch=[b"{}"])
    stop = delete_message(removal=Removal.STOP, cause=Cause.IMAGE_PULL, reason="no such image: 404")
    await scene.removal.remove(item(stop), stop, NOW)
    (patch,) = scene.kube.asked("patch")
    said = {"kbroker/stopped": "image_pull: no such image: 404"}
    assert patch == {**STOP_8, "metadata": {**STOP_8["metadata"], "annotations": said}}


async def test_preconditions() -> None:
    scene = Scene(get=[BOUND], patch=[b"{}"], release=[FREE], delete=[b""])
    stop = delete_message(removal=Removal.STOP)
    await scene.removal.remove(item(stop), stop, NOW)
    judged = delete_message(resource_version=7)
    await scene.removal.remove(item(judged), judged, NOW)
    assert scene.kube.asked("patch") == [STOP_8]
    assert scene.kube.asked("release") == [{**NAMELESS, "version": 7}]
    assert scene.kube.asked("delete") == [{**NAMELESS, "version": 9}]  # as the release left it


# The whole launcher, with the real scripts on a Redis without sockets.


class World:
    """A launcher, an executor's lease, and a Redis in memory."""

    def __init__(self, **answers: list[Any]) -> None:
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server)
        self.config = KubeConfig.from_values(**{"kubernetes.image": "img"})
        self.keys = RedisKeys(self.config.broker.prefix)
        self.records = Records(self.keys, 60, self.config.kubernetes.create_window)
        self.lease = Lease(self.redis, self.keys.executor("exec-1"), 60)
        assert self.lease.acquire()
        self.clock = Clock()
        self.kube = Kube(self.clock, **answers)
        self.ready: list[bool] = []
        self.launcher = Launcher(
            self.kube,
            fakeredis.aioredis.FakeRedis(server=server),
            self.config,
            ready_changed=self.ready.append,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
        )
        self.queue = self.keys.launch_queue("default", "normal")

    def publish(self, task: str = "task", **values: Any) -> QueueEntry:
        attempt = Launch("prod", TaskKey("dag", task, "run-1"), "launch-1").attempt(1)
        message = launch_message(attempt, **values)
        published = run(
            self.redis, [self.records.publish(self.lease.token, message, self.queue, b"{}")]
        )[0]
        return self.entry(message.as_dict(), published.entry)

    def entry(self, body: object, entry: str = "1-1", queue: str = "") -> QueueEntry:
        raw = orjson.dumps(body)
        return QueueEntry(entry, queue or self.queue, "launch", (body,), {}, 1, raw)

    def events(self) -> list[tuple[str, PodState, Cause | None]]:
        stream = ResultStream(self.redis, self.keys.results("exec-1"))
        events = [result.event for result in stream.read(100)]
        return [(e.attempt.launch.key.task_id, e.state, e.cause) for e in events]

    def parked(self) -> list[str]:
        return [name.decode() for name in self.redis.zrange(self.keys.parked("default"), 0, -1)]

    def due(self) -> None:
        for name in self.redis.zrange(self.keys.parked("default"), 0, -1):
            self.redis.zadd(self.keys.parked("default"), {name: 1})
        for namespace in self.redis.zrange(self.keys.full("default"), 0, -1):
            self.redis.zadd(self.keys.full("default"), {namespace: 1})

    def dead(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.redis.xrange(self.keys.dead)]


def mine_of(entry: QueueEntry) -> bytes:
    """The pod of a launch."""
    return pod(LaunchMessage.from_dict(entry.args[0]).attempt)


def created() -> Callable[[], bytes]:
    uids = iter(range(100))
    return lambda: pod(uid=f"uid-{next(uids)}")


async def test_each_entry_has_its_own_outcome(caplog: pytest.LogCaptureFixture) -> None:
    def surprise() -> bytes:
        raise RuntimeError("surprise")

    world = World(create=[MINE])
    by_task = {
        "good": lambda: MINE,
        "bad": lambda: error(400, "bad"),
        "odd": surprise,
        "full": lambda: QUOTA,
    }

    async def create(namespace: str, manifest: bytes, timeout: float | None) -> bytes:
        answer = by_task[orjson.loads(manifest)["metadata"]["annotations"]["task_id"]]()
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.kube.create_pod = create  # type: ignore[assignment]
    entries = {task: world.publish(task) for task in by_task}
    entries["gone"] = world.entry(launch_message().as_dict(), "9-9")
    newer = world.entry({**launch_message().as_dict(), "v": 99}, "9-8")
    garbage = world.entry({"v": 1, "deployment": "prod"}, "9-7")
    with pytest.raises(Unfinished) as unfinished:
        await world.launcher.launch([*entries.values(), newer, garbage])
    assert unfinished.value.retry == {entries["odd"].id}
    assert unfinished.value.later == {"9-8"}
    assert sorted(world.events()) == [
        ("bad", PodState.FAILED, Cause.ADMISSION),
        ("full", PodState.WAITING, Cause.QUOTA),
        ("good", PodState.PENDING, None),
    ]
    assert world.launcher.newer_schema == 1
    assert len(world.parked()) == 1
    assert "surprise" in caplog.text
    assert "secret-command" not in caplog.text


async def test_garbage_with_a_readable_envelope_fails_its_task() -> None:
    world = World(create=[MINE])
    entry = world.publish()
    body = {**entry.args[0], "command": "not a list"}
    await world.launcher.launch([entry.changed(args=(body,))])
    assert world.events() == [("task", PodState.FAILED, Cause.DEAD)]
    assert [fields[b"entry"] for fields in world.dead()] == [entry.id.encode()]
    assert world.redis.xlen(world.queue) == 0
    assert world.kube.requests == []


async def test_another_clusters_message_is_dead() -> None:
    world = World(create=[MINE])
    entry = world.publish()
    body = {**entry.args[0], "cluster": "elsewhere"}
    await world.launcher.launch([entry.changed(args=(body,))])
    assert len(world.dead()) == 1
    assert world.kube.requests == []


async def test_a_newer_schema_is_logged_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(create=[MINE])
    entry = world.entry({**launch_message().as_dict(), "v": 99})
    for _ in range(3):
        with pytest.raises(Unfinished) as unfinished:
            await world.launcher.launch([entry])
        assert unfinished.value.later == {entry.id}
    assert world.launcher.newer_schema == 1
    assert caplog.text.count("is left to others") == 1


async def test_a_parked_launch_is_created_when_there_is_room() -> None:
    world = World(create=[QUOTA, QUOTA, MINE])
    await world.launcher.launch([world.publish()])
    assert world.events() == [("task", PodState.WAITING, Cause.QUOTA)]
    assert world.redis.xlen(world.queue) == 0
    assert world.launcher.parked_until > world.clock.now
    for _ in range(2):
        assert await world.launcher.drain() == 0  # not due
        world.due()
        assert await world.launcher.drain() == 1
    assert world.parked() == []
    assert [state for _, state, _ in world.events()] == [PodState.WAITING, PodState.PENDING]


async def test_in_a_full_namespace_one_launch_asks_for_all() -> None:
    world = World(create=[QUOTA])
    await world.launcher.launch([world.publish("first")])
    await world.launcher.launch([world.publish(f"t{n}") for n in range(5)])
    await world.launcher.launch([world.publish("elsewhere", namespace="other")])
    asked = [namespace for namespace, _, _ in world.kube.asked("create")]
    assert asked == ["default", "other"]
    events = world.events()
    assert len(events) == 7
    assert {(state, cause) for _, state, cause in events} == {(PodState.WAITING, Cause.QUOTA)}
    assert len(world.parked()) == 7
    # Due by its own delay, it still leaves the look to the one whose turn it is.
    for name in world.redis.zrange(world.keys.parked("default"), 0, -1):
        world.redis.zadd(world.keys.parked("default"), {name: 1})
    assert await world.launcher.drain() == 7
    assert len(world.kube.asked("create")) == 2
    assert world.events() == events  # nothing new to tell
    world.kube.answers["create"] = [created()]
    world.due()
    while await world.launcher.drain():
        pass
    assert world.parked() == []
    assert not world.redis.exists(world.keys.full_namespace("default", "default"))


async def test_a_launch_in_doubt_asks_for_itself_in_a_full_namespace() -> None:
    # With its pod there already, a quota that is full answers before the name does.
    world = World(create=[QUOTA])
    await world.launcher.launch([world.publish("first")])
    world.kube.answers["create"] = [EXISTS]
    world.kube.answers["get"] = [lambda: mine_of(doubtful)]
    doubtful = world.publish("doubtful").changed(deliveries=2)
    await world.launcher.launch([doubtful])
    assert world.events()[-1] == ("doubtful", PodState.PENDING, None)


async def test_one_that_expires_while_there_is_no_room_fails_in_time() -> None:
    scene = Scene(create=[QUOTA])
    message, often = launch_message(expires_at=NOW + 5_000), Parking(times=30)
    refused = await launched(scene, message, parking=often)
    full = NoRoom(scene.permission(), "full")
    untold = await scene.creation.launch(item(message), message, full)
    for outcome in (refused, untold):
        assert isinstance(outcome, Park)
        assert 5.0 <= outcome.delay <= 6.0


async def test_who_was_refused_falls_due_soon_by_itself() -> None:
    # What it tells the others may be lost with the reply; nobody would look on its behalf.
    scene = Scene(create=[QUOTA])
    outcome = await launched(scene)
    assert isinstance(outcome, Park)
    assert outcome.no_room
    assert outcome.delay <= 1.0
    others = NoRoom(scene.permission(), outcome.no_room)
    outcome = await scene.creation.launch(item(launch_message()), launch_message(), others)
    assert isinstance(outcome, Park)
    assert outcome.delay >= 30.0


async def test_a_withdrawn_launch_is_never_created() -> None:
    world = World(create=[QUOTA, MINE])
    queued, parked = world.publish("queued"), world.publish("parked")
    await world.launcher.launch([parked])
    for entry in (queued, parked):
        attempt = LaunchMessage.from_dict(entry.args[0]).attempt
        place = ("default", "default")
        run(
            world.redis,
            [world.records.withdraw(world.lease.token, "exec-1", attempt, place, "no")],
        )
    await world.launcher.launch([queued])
    world.due()
    assert await world.launcher.drain() == 0
    assert len(world.kube.asked("create")) == 1


async def test_a_drained_launch_that_fails_unexpectedly_dies_in_the_end() -> None:
    def surprise() -> bytes:
        raise RuntimeError("surprise")

    world = World(create=[QUOTA, surprise])
    await world.launcher.launch([world.publish()])
    for _ in range(world.config.broker.max_deliveries + 1):
        world.due()
        assert await world.launcher.drain() == 1
    assert world.parked() == []
    assert world.events()[-1] == ("task", PodState.WAITING, Cause.DEAD)
    assert b"surprise" in world.dead()[0][b"reason"]


async def test_deletes_are_sent_together_and_waiting_ones_come_back() -> None:
    world = World(release=[FREE], delete=[b""], get=[NOT_FOUND])
    queue = world.keys.delete_queue("default")
    bodies = [delete_message(pod=f"p{n}", uid=f"u{n}").as_dict() for n in range(5)]
    await world.launcher.delete([world.entry(b, f"1-{n}", queue) for n, b in enumerate(bodies)])
    assert [asked["uid"] for asked in world.kube.asked("delete")] == [f"u{n}" for n in range(5)]
    world.kube.answers["get"] = [DONE]
    later = int(world.redis.time()[0]) * 1000 + 60_000
    early = delete_message(not_before=later)
    await world.launcher.delete([world.entry(early.as_dict(), "2-1", queue)])
    assert world.parked() == ["delete:uid-1"]
    # Its time has come: the message as parked has an earlier one.
    parked = world.redis.hget(world.keys.parked_messages("default"), "delete:uid-1")
    assert DeleteMessage.from_dict(orjson.loads(parked)) == early
    due = orjson.dumps({**orjson.loads(parked), "not_before": 1})
    world.redis.hset(world.keys.parked_messages("default"), "delete:uid-1", due)
    world.due()
    assert await world.launcher.drain() == 1
    assert world.kube.asked("delete")[-1]["uid"] == "uid-1"
    assert world.parked() == []


async def test_an_unready_launcher_takes_nothing_and_says_so() -> None:
    world = World(create=[UNAUTHORIZED, MINE])
    world.kube.denied = ["refused"] * 3
    release = asyncio.Event()
    world.launcher._identity._sleep = lambda _seconds: release.wait()  # type: ignore[assignment]
    first, second = world.publish("first"), world.publish("second")
    for entry in (first, second):
        with pytest.raises(Unfinished) as unfinished:
            await world.launcher.launch([entry])
        assert unfinished.value.later == {entry.id}
    assert not world.launcher.ready
    assert world.ready == [False]
    assert await world.launcher.drain() == 0
    assert [(t, s) for t, s, _ in world.events()] == [
        ("first", PodState.WAITING),
        ("second", PodState.WAITING),
    ]
    world.kube.denied = []
    release.set()
    while not world.launcher.ready:
        await asyncio.sleep(0)
    assert world.ready == [False, True]
    await world.launcher.launch([first, second])
    assert [state for _, state, _ in world.events()[2:]] == [PodState.PENDING] * 2
    await world.launcher.close()


async def test_the_pace_is_shared_through_redis() -> None:
    world = World(create=[error(429, retry_after=8), MINE])
    await world.launcher.launch([world.publish("a")])
    not_before = int(world.redis.hget(world.keys.pace("default"), "not_before"))
    seconds, _ = world.redis.time()
    assert 6_000 < not_before - seconds * 1000 < 9_000
    # Another launcher hears of it with its next permissions.
    client = world.launcher._client
    pace = SharedPace(
        client, world.keys, "default", 30.0, 0.0, rng=random.Random(1), sleep=asyncio.sleep
    )
    rooms = Rooms(world.keys, "default")
    permissions = Permissions(client, world.records, rooms, pace, "other")
    assert isinstance(await permissions.ask(launch_message()), Refused)
    assert 6.0 < pace.pause <= 8.0


def test_a_dead_launch_is_left_to_its_executor_to_judge() -> None:
    message = launch_message()
    outcome = dead(item(message), "default", "handed out 3 times, never finished")
    assert outcome.event is not None
    assert (outcome.event.state, outcome.event.cause) == (PodState.WAITING, Cause.DEAD)
    # What is no launch has no task to fail; it is dead for the same reason.
    assert dead(item(delete_message()), "default", "why") == Bury("why", None)


# The loop that drains.


class Drainer:
    """Drains as told, and stops the loop when there is nothing more to tell."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.parked_until = 0.0

    async def drain(self) -> int:
        if not self.answers:
            raise asyncio.CancelledError
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answers", "parked_until", "pauses"),
    [
        ([0, 0], 0.0, [2.0, 2.0]),
        ([3, 0], 0.0, [2.0]),
        ([0, 0], 1000.2, [0.5, 0.5]),
        ([BrokerUnavailableError("away"), RuntimeError("odd"), 1], 0.0, [2.0, 2.0]),
    ],
)
async def test_draining_is_quick_only_while_something_is_parked(
    answers: list[Any], parked_until: float, pauses: list[float]
) -> None:
    clock, drainer = Clock(), Drainer(*answers)
    drainer.parked_until = parked_until
    with pytest.raises(asyncio.CancelledError):
        await drain_loop(drainer, 0.5, monotonic=clock.monotonic, sleep=clock.sleep)
    assert clock.slept == pauses
