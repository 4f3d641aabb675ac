"""Redis away for ten seconds: the scheduler's calls stay short, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest
from kbroker.soak.proxy import TcpProxy
from tests.integration.scene import Scene, key, poll
from tests.integration.stack import Run, Stack, running

AWAY = 10.0
WITHIN = 1.0
NAP = 0.01
BEFORE, DURING = ("b0", "b1", "b2"), ("d0", "d1", "d2")


def killed(stack: Stack) -> Callable[[], None]:
    """The server is dead; what it returns starts it again, with its data."""
    stack.redis.save()
    stack.redis_server._end(signal.SIGKILL)

    def start() -> None:
        assert stack.redis_server._launch()

    return start


def stopped(stack: Stack) -> Callable[[], None]:
    """The server takes connections and answers nothing, until what it returns is called."""
    pid = stack.redis_server.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@dataclass
class Outage:
    """A run through which Redis was away.

    Attributes:
        run: the tasks.
        slowest: what was called while Redis was away → seconds of its slowest call.
    """

    run: Run
    slowest: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, call: Callable[[], Any]) -> Any:
        """Call it; its answer."""
        begun = time.monotonic()
        answer = call()
        took = time.monotonic() - begun
        self.slowest[name] = max(took, self.slowest.get(name, 0.0))
        return answer

    def live(self, leave: Callable[[Stack], Callable[[], None]]) -> None:
        """Tasks before, while and after Redis is away."""
        run = self.run
        run.submit(*BEFORE, seconds=2.0)
        run.submit("revoked", seconds=60.0)
        run.until("they run", lambda: len(run.stack.starts()) == 4)
        back = leave(run.stack)
        gone = time.monotonic()
        self._calls(run)
        while time.monotonic() < gone + AWAY:
            self.timed("heartbeat", run.beat)
            time.sleep(0.05)
        back()
        run.tasks.remove("revoked")
        run.finish()

    def _calls(self, run: Run) -> None:
        executor = run.executor
        for name in DURING:
            self.timed("execute_async", lambda name=name: run.submit(name))
        known = self.timed("revoke", lambda: executor.revoke(run.key("revoked")))
        assert known
        self.timed("heartbeat", run.beat)
        other = LaunchRequest(run.key("adopted"), ["true"], "launch-adopted")
        executor._redis._rest_until = 0.0  # each is the first to find out
        assert self.timed("adopt", lambda: executor.adopt([other])) == []
        executor._redis._rest_until = 0.0
        self.timed("clear", executor.clear_not_launched_queued_tasks)
        executor._redis._rest_until = 0.0
        self.timed("get_event_buffer", executor.get_event_buffer)
        assert executor.revoke(run.key("adopted"))


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outage]]:
    """Both kinds, side by side."""
    with ExitStack() as stacks, ThreadPoolExecutor(2) as threads:
        lived = {}
        waiting = []
        for leave in (killed, stopped):
            folder = tmp_path_factory.mktemp(leave.__name__)
            stack = stacks.enter_context(running(folder, launchers=1))
            outage = lived[leave.__name__] = Outage(Run(stack, stack.executor()))
            waiting.append(threads.submit(outage.live, leave))
        for one in waiting:
            one.result()
        yield lived
        for outage in lived.values():
            outage.timed("end", outage.run.executor.end)
            outage.run.stack.kill()


@pytest.mark.parametrize("kind", ["killed", "stopped"])
def test_ten_seconds_without_redis(outages: dict[str, Outage], kind: str) -> None:
    outage = outages[kind]
    run = outage.run
    assert run.stack.starts() == {**dict.fromkeys(run.tasks, 1), "revoked": 1}
    assert run.stack.ends() == dict.fromkeys(run.tasks, 1)
    assert {task: [s for s, _ in run.finals[task]] for task in run.tasks} == {
        task: ["success"] for task in run.tasks
    }
    assert run.executor.running == set()
    assert run.finals.keys() == set(run.tasks)
    slow = {name: took for name, took in outage.slowest.items() if took > WITHIN}
    assert slow == {}


@pytest.fixture
def slow(redis_url: str) -> Iterator[tuple[Scene, TcpProxy]]:
    """A scene, and a proxy to its Redis."""
    port = urlsplit(redis_url).port
    assert port
    with TcpProxy("127.0.0.1", port) as proxy:
        scene = Scene(redis_url, core__executor_lease=5.0)
        scene.lead()
        yield scene, proxy


class Stalls:
    """How long this machine lets us wait for a processor, beyond what we ask for."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _measure(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            time.sleep(NAP)
            self.seconds += max(0.0, time.monotonic() - begun - 2 * NAP)


def through(proxy: TcpProxy, scene: Scene) -> KubernetesExecutor:
    """An executor that talks to Redis through the proxy."""
    return scene.executor(broker__url=f"redis://127.0.0.1:{proxy.port}/0")


@pytest.mark.parametrize("lag", [0.15, 0.45])
def test_a_slow_redis_takes_no_longer_than_a_dead_one(
    slow: tuple[Scene, TcpProxy], lag: float
) -> None:
    scene, proxy = slow
    executor = through(proxy, scene)
    executor.execute_async(key("before"), ["true"])
    executor.heartbeat()
    proxy.delay(lag)
    proxy.cut()
    slowest = 0.0
    end = time.monotonic() + 2.0
    executor.execute_async(key("during"), ["true"])
    with Stalls() as stalls:
        while time.monotonic() < end:
            executor.execute_async(key("revoked"), ["true"])
            for call in (executor.heartbeat, lambda: executor.revoke(key("revoked"))):
                begun, stalled = time.monotonic(), stalls.seconds
                call()
                took = time.monotonic() - begun
                slowest = max(slowest, took - (stalls.seconds - stalled))
    proxy.delay(0.0)
    proxy.cut()
    assert slowest < WITHIN
    published = [m.attempt.launch.key.task_id for m in scene.queued()]
    if lag < 0.3:
        assert published == ["before", "during"]
    poll("all is published once", lambda: (executor.heartbeat(), len(scene.queued()) == 2)[1])
    executor.end()


def test_every_call_returns_while_nothing_is_answered(slow: tuple[Scene, TcpProxy]) -> None:
    scene, proxy = slow
    executor = through(proxy, scene)
    executor.execute_async(key(), ["true"])
    executor.heartbeat()
    proxy.black_hole()
    other = LaunchRequest(key("other"), ["true"], "launch")
    calls: dict[str, Callable[[], Any]] = {
        "heartbeat": executor.heartbeat,
        "sync": executor.sync,
        "adopt": lambda: executor.adopt([other]),
        "clear": executor.clear_not_launched_queued_tasks,
        "get_event_buffer": executor.get_event_buffer,
        "waiting": lambda: executor.waiting(key()),
        "revoke": lambda: executor.revoke(key("other")),
        "end": executor.end,
    }
    took = {}
    for name, call in calls.items():
        executor._redis._rest_until = 0.0  # each is the first to find out
        begun = time.monotonic()
        call()
        took[name] = time.monotonic() - begun
    assert {name: seconds for name, seconds in took.items() if seconds > 0.75} == {}
    assert took["heartbeat"] > 0.4, "nothing was asked"


def test_its_absence_and_its_return_are_said_once(
    slow: tuple[Scene, TcpProxy], caplog: pytest.LogCaptureFixture
) -> None:
    scene, proxy = slow
    now = time.monotonic()
    config = KubeConfig.from_values(
        **{**scene.overrides(), "broker.url": f"redis://127.0.0.1:{proxy.port}/0"}
    )
    executor = KubernetesExecutor(config, monotonic=lambda: now)
    executor.start()
    for _ in range(3):
        proxy.refuse()
        for _ in range(20):
            now += 0.3
            executor.heartbeat()
        proxy.behave()
        for _ in range(20):
            now += 0.3
            executor.heartbeat()
    said = [getattr(record, "action", "") for record in caplog.records]
    assert [x for x in said if x.startswith("redis-")] == ["redis-away", "redis-back"] * 3
    executor.end()
