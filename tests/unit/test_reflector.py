"""The reflector against a scripted API server and a clock that only moves when told."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from kbroker.errors import LeaseLostError
from kbroker.kube_client import ApiError
from kbroker.pod import Pod, PodPage
from kbroker.reflector import Reflector
from kbroker.retry import ApiFailure
from kbroker.settings import WatcherSettings

Json = dict[str, Any]
SETTINGS = WatcherSettings(
    watch_timeout=290,
    silent_timeout=1000,
    page_size=2,
    resync_interval=600,
    backoff_base=0.5,
    backoff_max=30,
)


def body(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def line(kind: str, name: str, version: int) -> bytes:
    return orjson.dumps({"type": kind, "object": body(name, version)})


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", "", version)


def error(code: int, reason: str = "") -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": f"error {code}"}
    return orjson.dumps({"type": "ERROR", "object": status})


def failure(status: int, retry_after: float | None = None) -> ApiError:
    return ApiError(ApiFailure(status, "", f"HTTP {status}", retry_after))


def version_of(text: bytes) -> int:
    """The version that a server must have that sends this."""
    found = re.search(rb'"resourceVersion":"(\d+)"', text)
    return int(found[1]) if found else 0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Silence:
    """The connection stays open, and nothing comes."""


class Kube:
    """Lists `pods` at `version`; each watch follows the next of `watches`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = 100
        self.pods: list[Json] = []
        self.watches: list[list[Any]] = []
        self.failures: list[ApiError | None] = []  # of the next list requests
        self.lists: list[tuple[int, str | None]] = []
        self.watched: list[tuple[int, float]] = []
        self.reloaded = 0

    async def list_pods(
        self, namespace: str, selector: str, *, limit: int, continue_token: str | None = None
    ) -> PodPage:
        self.lists.append((limit, continue_token))
        problem = self.failures.pop(0) if self.failures else None
        if problem is not None:
            raise problem
        start = int(continue_token or 0)
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(self.pods):
            metadata["continue"] = str(start + limit)
        items = self.pods[start : start + limit]
        return PodPage.decode(orjson.dumps({"metadata": metadata, "items": items}))

    @asynccontextmanager
    async def watch_pods(
        self, namespace: str, selector: str, resource_version: int, timeout: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        self.watched.append((resource_version, timeout))
        yield self._batches(self.watches.pop(0) if self.watches else [], timeout)

    async def _batches(self, steps: list[Any], timeout: float) -> AsyncIterator[list[bytes]]:
        await asyncio.sleep(0)
        for step in steps:
            if isinstance(step, ApiError):
                raise step
            if step is Silence:
                await asyncio.sleep(60)
            elif isinstance(step, float):
                self.clock.now += step
            elif step == "close":
                return
            else:
                self.version = max([self.version, *map(version_of, step)])
                yield step
        self.clock.now += timeout

    async def reload_credentials(self) -> None:
        self.reloaded += 1


class Recorder:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.problem: Exception | None = None

    async def relisting(self, new_generation: bool) -> None:
        self.told.append(("relisting", new_generation))

    async def page(self, pods: Sequence[Pod]) -> None:
        self.told.append([pod.name for pod in pods])

    async def listed(self, version: int) -> None:
        self.told.append(("listed", version))

    async def events(self, events: Sequence[tuple[str, Pod]]) -> None:
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem
        self.told.append([(kind, pod.name, pod.resource_version) for kind, pod in events])

    async def bookmark(self, version: int) -> None:
        self.told.append(("bookmark", version))

    def process_error(self, event: Mapping[str, Any]) -> str:
        if event["object"]["code"] == 410:
            return "0"
        raise failure(event["object"]["code"])


class Scene:
    def __init__(self, floor: int = 0, **settings: Any) -> None:
        values = {f: getattr(SETTINGS, f) for f in SETTINGS.__dataclass_fields__}
        self.clock = Clock()
        self.kube = Kube(self.clock)
        self.consumer = Recorder()
        self.delays: list[float] = []
        self.reflector = Reflector(
            self.kube,  # type: ignore[arg-type]
            "jobs",
            "a=b",
            self.consumer,
            WatcherSettings(**{**values, **settings}),
            floor=floor,
            monotonic=self.clock,
            sleep=self._sleep,
            rng=random.Random(1),
        )

    async def _sleep(self, delay: float) -> None:
        self.delays.append(delay)

    async def cycle(self, version: int | None, *watch: Any) -> int | None:
        """One cycle, with this watch."""
        self.kube.watches.append(list(watch))
        return await self.reflector.cycle(version)

    def told(self) -> list[Any]:
        told, self.consumer.told = self.consumer.told, []
        return told


LIST = [("relisting", False), [], ("listed", 100)]


async def test_first_a_list_in_pages_then_a_watch_from_its_version() -> None:
    scene = Scene()
    scene.kube.pods = [body(name, 1) for name in "abcde"]
    assert await scene.cycle(None, [line("ADDED", "f", 101)]) == 101
    assert scene.told() == [
        ("relisting", False),
        ["a", "b"],
        ["c", "d"],
        ["e"],
        ("listed", 100),
        [("ADDED", "f", 101)],
    ]
    assert scene.kube.lists == [(1, None), (2, None), (2, "2"), (2, "4")]
    assert scene.kube.watched == [(100, 290)]
    assert scene.delays == []


async def test_a_known_version_is_resumed_without_a_list() -> None:
    scene = Scene()
    assert await scene.cycle(90, [line("MODIFIED", "a", 95)]) == 95
    assert scene.told() == [[("MODIFIED", "a", 95)]]
    assert scene.kube.lists == [(1, None)]
    assert scene.kube.watched == [(90, 290)]


async def test_what_one_read_gave_is_told_at_once_and_in_order() -> None:
    scene = Scene()
    lines = [line("ADDED", "a", 101), b"", line("DELETED", "a", 102), bookmark(103)]
    await scene.cycle(100, [*lines, line("ADDED", "b", 104)], [line("MODIFIED", "b", 105)])
    assert scene.told() == [
        [("ADDED", "a", 101), ("DELETED", "a", 102)],
        ("bookmark", 103),
        [("ADDED", "b", 104)],
        [("MODIFIED", "b", 105)],
    ]


async def test_an_idle_watch_that_ends_in_time_is_no_error_and_replays_nothing() -> None:
    scene = Scene()
    version: int | None = 100
    for _ in range(2):
        version = await scene.cycle(version)
    assert version == 100
    assert scene.told() == []
    assert scene.delays == []
    assert scene.kube.watched == [(100, 290), (100, 290)]


async def test_a_bookmark_moves_the_version() -> None:
    scene = Scene()
    assert await scene.cycle(100, [bookmark(180)]) == 180


@pytest.mark.parametrize(
    "watch",
    [
        [[error(410, "Expired")]],
        [failure(410)],
    ],
    ids=["as an event", "as the answer"],
)
async def test_410_asks_for_a_list(watch: list[Any]) -> None:
    scene = Scene()
    assert await scene.cycle(100, *watch) is None
    assert len(scene.delays) == 1
    await scene.cycle(None)
    assert scene.told() == LIST


async def test_410_while_paging_begins_anew() -> None:
    scene = Scene()
    scene.kube.pods = [body(name, 1) for name in "abc"]
    scene.kube.failures = [None, None, failure(410)]
    assert await scene.cycle(None) is None
    assert scene.told() == [("relisting", False), ["a", "b"]]
    assert await scene.cycle(None) == 100
    assert scene.told() == [("relisting", False), ["a", "b"], ["c"], ("listed", 100)]


@pytest.mark.parametrize(
    "status",
    [
        {"kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410},
        {"code": 410},
        # Even one that could be a pod.
        {"metadata": {"name": "a", "resourceVersion": "7"}, "code": 410},
    ],
)
async def test_an_error_is_its_consumers_to_judge_whatever_its_status_looks_like(
    status: Json,
) -> None:
    scene = Scene()
    lines = [line("ADDED", "a", 101), orjson.dumps({"type": "ERROR", "object": status})]
    assert await scene.cycle(100, lines) is None
    assert scene.told() == [[("ADDED", "a", 101)]]


async def test_events_before_an_error_count() -> None:
    scene = Scene()
    assert await scene.cycle(100, [line("ADDED", "a", 101), error(410)]) is None
    assert await scene.cycle(100, [line("ADDED", "b", 102), error(500)]) == 102
    assert scene.told() == [[("ADDED", "a", 101)], [("ADDED", "b", 102)]]


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage",
        b'{"type": "ADDED", "object": {"meta',
        b'{"type": "NEWS", "object": {}}',
        b'{"type": "ADDED", "object": {"metadata": {"name": "a"}}}',
        b'{"type": "ADDED", "object": 7}',
        b'{"type": "ERROR", "object": 7}',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "x"}}}',
        b"\xff\xfe",
    ],
)
async def test_garbage_resumes_after_the_last_good_line(garbage: bytes) -> None:
    scene = Scene()
    good = line("ADDED", "a", 101)
    assert await scene.cycle(100, [good, garbage, line("ADDED", "b", 102)]) == 101
    assert scene.told() == [[("ADDED", "a", 101)]]
    assert len(scene.delays) == 1
    assert await scene.cycle(101, [line("ADDED", "b", 102)]) == 102
    assert scene.kube.watched[1][0] == 101
    assert scene.told() == [[("ADDED", "b", 102)]]


@pytest.mark.parametrize(
    "watch",
    [["close"], [failure(0)], [[error(500)]], [failure(503)]],
    ids=["closed early", "reset", "error event", "refused"],
)
async def test_a_broken_watch_resumes_after_back_off(watch: list[Any]) -> None:
    scene = Scene()
    assert await scene.cycle(100, *watch) == 100
    assert len(scene.delays) == 1
    assert scene.told() == []


async def test_a_silent_watch_resumes_once_and_then_lists() -> None:
    scene = Scene(silent_timeout=0.05)
    assert await scene.cycle(100, Silence) == 100
    assert await scene.cycle(100, Silence) is None
    await scene.cycle(None)
    assert scene.told() == LIST


async def test_a_bookmark_between_two_silences_restores_trust() -> None:
    scene = Scene(silent_timeout=0.05)
    assert await scene.cycle(100, Silence) == 100
    assert await scene.cycle(100, [bookmark(110)], Silence) == 110
    assert await scene.cycle(110, [bookmark(120)], Silence) == 120
    assert ("relisting", False) not in scene.told()


async def test_when_the_expected_bookmark_stays_away_everything_is_listed() -> None:
    scene = Scene(silent_timeout=200)
    assert await scene.cycle(100) is None
    assert scene.delays == []


async def test_every_resync_interval_everything_is_listed() -> None:
    scene = Scene()
    version = await scene.cycle(None)
    for _ in range(2):
        version = await scene.cycle(version, [bookmark(150)])
    scene.told()
    scene.kube.version = 160
    assert await scene.cycle(version) == 160
    assert scene.told() == [("relisting", False), [], ("listed", 160)]
    # The watch before a resync ends when it is due.
    assert [timeout for _, timeout in scene.kube.watched] == [290, 290, 20, 290]


async def test_a_version_below_the_checkpoint_begins_a_new_generation() -> None:
    scene = Scene()
    assert await scene.cycle(5000) == 100
    assert scene.told() == [("relisting", True), [], ("listed", 100)]
    assert scene.kube.watched == [(100, 290)]
    await scene.cycle(100)
    assert scene.told() == []


async def test_a_fallen_version_is_noticed_by_a_first_list_too() -> None:
    scene = Scene(floor=5000)
    await scene.cycle(None)
    assert scene.told()[0] == ("relisting", True)


async def test_a_version_that_falls_while_listing_begins_anew() -> None:
    scene = Scene()

    async def fall(new_generation: bool) -> None:
        scene.kube.version = 50

    scene.consumer.relisting = fall  # type: ignore[method-assign]
    assert await scene.cycle(None) is None
    assert scene.told() == []


async def test_back_off_grows_with_full_jitter_and_is_capped() -> None:
    scene = Scene()
    for _ in range(200):
        await scene.cycle(100, "close")
    limits = [min(30.0, 0.5 * 2**n) for n in range(200)]
    assert all(0 <= d <= limit for d, limit in zip(scene.delays, limits, strict=True))
    late = scene.delays[10:]
    assert min(late) < 3
    assert max(late) > 27


async def test_back_off_starts_anew_after_anything_good() -> None:
    scene = Scene()
    for _ in range(20):
        await scene.cycle(100, "close")
    await scene.cycle(100, [bookmark(101)], "close")
    assert scene.delays[-1] <= 0.5


async def test_retry_after_is_obeyed_up_to_the_longest_back_off() -> None:
    scene = Scene()
    await scene.cycle(100, failure(429, 7))
    await scene.cycle(100, failure(429, 3600))
    assert scene.delays == [7, 30]


async def test_refused_credentials_are_read_anew() -> None:
    scene = Scene()
    scene.kube.failures = [failure(401)]
    assert await scene.cycle(100) == 100
    assert scene.kube.reloaded == 1


async def test_an_api_error_of_the_consumer_repeats_its_events() -> None:
    scene = Scene()
    scene.consumer.problem = failure(500)
    assert await scene.cycle(100, [line("DELETED", "a", 101)]) == 100
    assert await scene.cycle(100, [line("DELETED", "a", 101)]) == 101
    assert scene.told() == [[("DELETED", "a", 101)]]


async def test_any_other_error_of_the_consumer_ends_the_run() -> None:
    scene = Scene()
    scene.consumer.problem = LeaseLostError("taken")
    scene.kube.watches = [[[line("ADDED", "a", 101)]]]
    with pytest.raises(LeaseLostError):
        await scene.reflector.run(100)
    assert scene.told() == []


async def test_run_goes_from_cycle_to_cycle() -> None:
    scene = Scene()
    scene.kube.watches = [
        [[line("ADDED", "a", 101)], "close"],
        [[error(410)]],
        [[line("ADDED", "b", 102)]],
    ]
    running = asyncio.ensure_future(scene.reflector.run(100))
    while len(scene.kube.watched) < 4:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    expected = [
        [("ADDED", "a", 101)],
        ("relisting", False),
        [],
        ("listed", 101),
        [("ADDED", "b", 102)],
    ]
    assert scene.told()[: len(expected)] == expected
