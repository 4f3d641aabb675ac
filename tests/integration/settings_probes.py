"""What can be observed of a setting: functions from a configuration to something seen.

Components are built from the whole configuration, as their processes build them, with
scripted servers and clocks where time matters.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from kbroker.event import Cause, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.keys import RedisKeys
from kbroker.kube_client import KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.kube_credentials import Credentials
from kbroker.launcher import Launcher
from kbroker.manifests import Manifests
from kbroker.message import LaunchRequest
from kbroker.pace import Lane
from kbroker.pod_checks import PodChecks
from kbroker.pod_table import PodTable
from kbroker.queue_entry import QueueEntry
from kbroker.redis_client import connect_async
from kbroker.tracked import track
from tests.integration.scene import Scene, failed, key
from tests.integration.stack import ROOT
from tests.unit import test_reflector, test_watcher
from tests.unit.launcher_scene import LOST, QUOTA, Clock, Kube, error, launch_message, pod

Observe = Callable[["World"], Any]


class World:
    """One configuration, an empty Redis, and a folder."""

    def __init__(self, url: str, folder: Any, name: str, value: Any) -> None:
        self.folder = folder
        self.url = url
        base = {"broker.url": url, "core.executor_id": "exec-1"}
        self.config = KubeConfig.from_values(**{**base, name: value})
        self.scene = Scene(url)
        self.scene.redis.flushall()
        self.scene.config = self.config
        self.scene.keys = self.keys = RedisKeys(self.config.broker.prefix)
        self.scene.records = _records(self.config)
        self.now = 1000.0

    def executor(self, tasks: int = 1, **config: Any) -> KubernetesExecutor:
        """A started one that wants so many tasks; its clock is `now`."""
        executor = KubernetesExecutor(self.config, monotonic=lambda: self.now)
        executor.start()
        for number in range(tasks):
            executor.execute_async(key(f"t{number}"), ["true"], executor_config=config or None)
        return executor


def _records(config: KubeConfig) -> Any:
    from tests.records import Records  # noqa: PLC0415

    keys = RedisKeys(config.broker.prefix)
    return Records(keys, config.broker.record_ttl, config.kubernetes.create_window)


# What a task's message and pod say.


def message(world: World) -> Any:
    """What is published for a task."""
    request = LaunchRequest(key(), ["true"], "launch-1")
    return track(request, world.config, "exec-1", 100.0).message


def priority(world: World) -> str:
    request = LaunchRequest(key(), ["true"], "launch-1", queue="urgent")
    return track(request, world.config, "exec-1", 100.0).priority


def manifest(world: World, **config: Any) -> dict[str, Any]:
    """The pod of a task with this executor config."""
    sent = launch_message(executor_config=config)
    return Manifests(world.config.kubernetes).build(sent, None)


def base(world: World, **config: Any) -> dict[str, Any]:
    (container,) = manifest(world, **config)["spec"]["containers"]
    return dict(container)


def template(world: World) -> str:
    return str(manifest(world)["spec"]["containers"][0]["image"])


def merged(world: World) -> list[str]:
    patch = {"spec": {"containers": [{"name": "other", "image": "x"}]}}
    try:
        return [c["name"] for c in manifest(world, pod_override=patch)["spec"]["containers"]]
    except Exception as refused:
        return [type(refused).__name__]  # by position, `base` itself is renamed


# What an executor does.


def connected(world: World) -> bool:
    """Whether an executor is seen in the test's own Redis."""
    return world.executor(0) is not None and world.scene.redis.dbsize() > 0


def prefixed(world: World) -> bool:
    """Whether there are keys of the prefix {x}: and no others."""
    world.executor(0)
    return all(name.startswith(b"{x}:") for name in world.scene.redis.keys("*"))


def secrets_asked(world: World) -> int:
    """How many Secrets an executor asks for."""
    world.executor(0)
    return int(world.scene.redis.xlen(world.keys.secrets_queue("default")))


def published(world: World) -> int:
    """How many launches one heartbeat publishes of five."""
    world.executor(5).heartbeat()
    return len(world.scene.queued())


def taken(world: World) -> int:
    """How many of three events one sync takes."""
    executor = world.executor(3)
    executor.heartbeat()
    for sent in world.scene.queued():
        world.scene.take(sent.attempt)
        world.scene.report(world.scene.pod(sent.attempt, PodState.RUNNING, started=Started.YES))
    executor.get_event_buffer()
    executor.sync()
    return len(executor.get_event_buffer())


def lease_ms(world: World) -> int:
    """How long the executor's lease holds."""
    world.executor(0)
    return int(world.scene.redis.pttl(world.keys.executor("exec-1")))


def again_after(world: World) -> list[bool]:
    """Whether a lost message is published again 5 s later, and 50 s later."""
    world.scene.lead()
    executor = world.executor()
    executor.heartbeat()
    world.scene.redis.delete(world.keys.launch_queue("default", "normal"))
    seen = []
    for seconds in (5, 45):
        world.now += seconds
        executor._lease_due = world.now + 100  # its lease is not what is looked at
        executor.heartbeat()
        executor.heartbeat()
        seen.append(len(world.scene.queued()) > 0)
    return seen


def attempts(world: World) -> int:
    """How many pods a task gets that never starts."""
    executor = world.executor()
    for number in range(1, 9):
        executor.heartbeat()
        waiting = world.scene.queued()
        if not waiting:
            return number - 1
        attempt = waiting[0].attempt
        world.scene.take(attempt)
        world.scene.redis.hset(
            world.keys.task(attempt.launch.digest), "create_before", str(world.scene.version)
        )
        world.scene.report(failed(world.scene, attempt, Cause.IMAGE_PULL, Started.NEVER))
        executor.heartbeat()
        world.now += 10
        executor._lease_due = world.now + 100
    return 9


def expires_in(world: World) -> int | None:
    expires = message(world).expires_at
    return None if expires is None else expires // 1000 - 100


def keeps(world: World, *, succeeded: bool) -> bool:
    """Whether a finished pod is left."""
    executor = world.executor()
    executor.heartbeat()
    (sent,) = world.scene.queued()
    world.scene.launched(sent.attempt)
    end = world.scene.pod(sent.attempt, PodState.SUCCEEDED, started=Started.YES)
    if not succeeded:
        end = failed(world.scene, sent.attempt, Cause.ERROR, Started.YES)
    world.scene.report(end)
    executor.heartbeat()
    executor.get_event_buffer()
    executor.heartbeat()
    (asked,) = world.scene.removals()
    return bool(asked["removal"] == "release")


def kept_for(world: World) -> int:
    """Seconds that the record of a finished launch lives on."""
    keeps(world, succeeded=True)
    (record,) = world.scene.redis.keys(world.keys.task("*"))
    return round(world.scene.redis.pttl(record) / 1000)


def window_ms(world: World) -> int:
    """How long a grant lasts."""
    world.executor().heartbeat()
    (sent,) = world.scene.queued()
    granted = world.scene.take(sent.attempt)
    return round((granted.create_before - granted.now) / 100) * 100


def patience(world: World, wait: Callable[[KubeConfig], Any]) -> bool:
    """Whether 0.7 s are too long to wait for a server that takes connections and says nothing."""
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        values = {
            n: v for n, v in world.config.values().items() if world.config.source(n) != "default"
        }
        config = KubeConfig.from_values(**{**values, "broker.url": url})
        begun = time.monotonic()
        wait(config)
        return time.monotonic() - begun < 0.7


def beat(config: KubeConfig) -> None:
    executor = KubernetesExecutor(config)
    executor.execute_async(key(), ["true"])
    executor.heartbeat()


def ask_as_worker(config: KubeConfig) -> None:
    async def ask() -> None:
        client = connect_async(config.broker.url, config.broker.socket_timeout)
        try:
            await client.ping()
        except Exception:
            return
        finally:
            await client.aclose()

    asyncio.run(ask())


# What a launcher does.


@dataclass
class Launched:
    """How one launch went.

    Attributes:
        slept: simulated seconds between requests.
        kube: what was asked of the API server.
        parked: seconds until the launch is due again; None where it was not parked.
    """

    slept: list[float]
    kube: Kube
    parked: float | None


def launch(world: World, answers: list[Any], parked_before: int = 0) -> Launched:
    """A launcher takes a task; the API server answers creates like this."""
    world.executor().heartbeat()
    queue = world.keys.launch_queue(
        world.config.kubernetes.cluster, world.config.broker.default_priority
    )
    ((entry, fields),) = world.scene.redis.xrange(queue)
    envelope = orjson.loads(fields[b"message"])
    if parked_before:
        envelope["args"][0]["parked"] = {"times": parked_before, "since": 1}
    raw = orjson.dumps(envelope)
    clock = Clock()

    async def run() -> Kube:
        client = connect_async(world.url, 5.0)
        kube = Kube(clock, create=answers, get=[pod()])
        launcher = Launcher(
            kube,
            client,
            world.config,
            rng=random.Random(1),
            monotonic=clock.monotonic,
            sleep=clock.sleep,
        )
        args = tuple(envelope["args"])
        entries = [QueueEntry(entry.decode(), queue, "launch.normal", args, {}, 1, raw)]
        try:
            await launcher.launch(entries)
        finally:
            await launcher.close()
            await client.aclose()
        return kube

    kube = asyncio.run(run())
    due = world.scene.redis.zrange(world.keys.parked("default"), 0, -1, withscores=True)
    seconds, micros = world.scene.redis.time()
    parked = None if not due else due[0][1] / 1000 - seconds - micros / 1e6
    return Launched(clock.slept, kube, parked)


FAILING = error(500, "no")


def first_wait(world: World) -> float:
    return launch(world, [FAILING, pod()]).slept[0]


def longest_wait(world: World) -> float:
    return max(launch(world, [FAILING]).slept)


def tried_for(world: World) -> bool:
    """Whether it was tried for longer than five seconds."""
    return sum(launch(world, [FAILING]).slept) > 5


def obeyed(world: World) -> float:
    return max(launch(world, [error(429, retry_after=25), pod()]).slept)


def asked_timeout(world: World) -> float:
    return float(launch(world, [pod()]).kube.asked("create")[0][2])


def parked_for(world: World, before: int = 0) -> float:
    parked = launch(world, [LOST, QUOTA], before).parked
    assert parked is not None
    return parked


def paced(world: World) -> float:
    """Seconds until a launcher may create five pods."""
    clock = Clock()

    async def run() -> None:
        client = connect_async(world.url, 5.0)
        launcher = Launcher(
            Kube(clock), client, world.config, monotonic=clock.monotonic, sleep=clock.sleep
        )
        try:
            for _ in range(5):
                assert await launcher.pace.turn(Lane.CREATE, clock.now + 60)
        finally:
            await launcher.close()
            await client.aclose()

    asyncio.run(run())
    return sum(clock.slept)


def leased_for(world: World) -> int:
    """Seconds after which a drained item falls due again."""
    parked = world.keys.parked("default")
    world.scene.redis.zadd(parked, {"launch:x:1": 1})
    world.scene.redis.hset(world.keys.parked_messages("default"), "launch:x:1", b"{}")

    class Watching(Kube):
        pass

    async def run() -> float:
        client = connect_async(world.url, 5.0)
        launcher = Launcher(Watching(Clock()), client, world.config)
        seen: list[float] = []

        async def look(*_: Any) -> None:
            score = await client.zscore(parked, "launch:x:1")
            assert score is not None
            seen.append(float(score))

        launcher._work = look  # type: ignore[method-assign]
        await launcher.drain()
        await client.aclose()
        return seen[0]

    score = asyncio.run(run())
    return round(score / 1000 - world.scene.redis.time()[0])


def connections(world: World) -> int:
    """How many connections a launcher process opens at most."""
    path = world.folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig("a")))
    world.config = KubeConfig.from_values(
        **{
            "kubernetes.kubeconfig": str(path),
            "kubernetes.pool_size": world.config.kubernetes.pool_size,
        }
    )

    async def run() -> int:
        kube = await KubeClient.connect(world.config.kubernetes)
        try:
            limit = kube._session.connector.limit
        finally:
            await kube.close()
        return int(limit)

    return asyncio.run(run())


def kubeconfig(current: str) -> dict[str, Any]:
    names = ("a", "b")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": n, "cluster": {"server": f"https://{n}.invalid"}} for n in names],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "u"}} for n in names],
    }


def server(world: World) -> str:
    """The API server that is talked to; files `a` and `b` are kubeconfigs."""
    values = dict(world.config.values())
    for name in ("a", "b"):
        (world.folder / name).write_text(json.dumps(kubeconfig(name)))
    chosen = values["kubernetes.kubeconfig"] or "a"
    world.config = KubeConfig.from_values(
        **{
            "kubernetes.kubeconfig": str(world.folder / chosen),
            "kubernetes.context": values["kubernetes.context"],
        }
    )
    return Credentials(world.config.kubernetes).server


PROCESS = """
import asyncio, json
import workers.launcher as process

async def drained():
    asked = {}
    async def loop(_launcher, interval):
        asked["interval"] = interval
    async def connect(_settings):
        return object()
    process.drain_loop = loop
    process.KubeClient.connect = connect
    process.Launcher = lambda *_args, **_more: object()
    await process.process._start(lambda _ready: None)
    await asyncio.sleep(0)
    return asked["interval"]

actors = {name: actor.options["batch_size"] for name, actor in process.broker.actors.items()}
print(json.dumps({
    "actors": list(actors),
    "batch": actors.get("delete"),
    "redelivery": process.broker.redelivery_after,
    "deliveries": process.broker.max_deliveries,
    "interval": asyncio.run(drained()),
}))
"""


# A process takes a second to start: one shows several settings.
PROCESSES = (
    {
        "broker.redelivery_after": 3.0,
        "broker.max_deliveries": 1,
        "broker.batch_size": 1,
        "launcher.drain_interval": 3.0,
    },
    {
        "broker.redelivery_after": 9.0,
        "broker.max_deliveries": 5,
        "broker.batch_size": 7,
        "launcher.drain_interval": 9.0,
    },
)


def process(world: World, what: str) -> Any:
    """What a launcher process is made with, as it says itself."""
    given = world.config.values()
    (chosen,) = (values for values in PROCESSES if any(given[n] == values[n] for n in values))
    return _process(tuple(chosen.items()), world.url)[what]


@lru_cache
def _process(values: tuple[tuple[str, Any], ...], url: str) -> dict[str, Any]:
    config = KubeConfig.from_values(**{"broker.url": url, **dict(values)})
    plain = {k: v for k, v in os.environ.items() if not k.startswith("KBROKER")}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        cwd=ROOT,
        env={**plain, **config.as_env()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# What a watcher does.


def reflected(world: World) -> test_reflector.Scene:
    """A reflector with the configuration's own settings, as the watcher makes it."""
    settings = world.config.watcher
    return test_reflector.Scene(**{name: getattr(settings, name) for name in settings.__slots__})


def paged(world: World) -> list[int]:
    scene = reflected(world)
    asyncio.run(scene.reflector.cycle(None))
    return [limit for limit, _ in scene.kube.lists if limit > 1][:1]


def watched_for(world: World) -> float:
    scene = reflected(world)
    asyncio.run(scene.reflector.cycle(100))
    return scene.kube.watched[0][1]


def silent(world: World) -> bool:
    """Whether a connection without a byte for a second is given up."""
    scene = reflected(world)

    async def cycle() -> bool:
        try:
            async with asyncio.timeout(1.0):
                await scene.cycle(100, test_reflector.Silence)
        except TimeoutError:
            return False
        return True

    return asyncio.run(cycle())


def backed_off(world: World, failures: int) -> float:
    """The longest wait of so many failures."""
    scene = reflected(world)

    async def cycles() -> None:
        for _ in range(failures):
            await scene.cycle(100, "close")

    asyncio.run(cycles())
    return max(scene.delays)


def watcher_lease_ms(world: World) -> int:
    """How long the leader's lease holds, taken as the leader takes it."""
    from kbroker.watch_leader import WatchLeader  # noqa: PLC0415

    async def run() -> int:
        client = connect_async(world.url, 5.0)
        leader = WatchLeader(world.config, Kube(Clock()), client, "w")  # type: ignore[arg-type]
        leader._lead = _stay  # type: ignore[method-assign]
        turn = asyncio.create_task(leader.run())
        lease = world.keys.lease("default", "default")
        for _ in range(200):
            await asyncio.sleep(0.01)
            if (left := await client.pttl(lease)) > 0:
                break
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        await client.aclose()
        return int(left)

    return asyncio.run(run())


async def _stay(*_: Any, **__: Any) -> None:
    await asyncio.sleep(60)


def checked(world: World, note: Any, seconds: float) -> tuple[bool, bool]:
    """Whether a pod is condemned, and whether it is swept, within so many seconds."""
    table, publisher, now = PodTable(), test_watcher.Publisher(), [10_000.0]
    checks = PodChecks(table, publisher, world.config.watcher, lambda: now[0])  # type: ignore[arg-type]
    table.note(note, "e", now[0])

    async def look() -> None:
        await checks.check()
        for _ in range(10):
            now[0] += seconds / 10
            await checks.check()

    asyncio.run(look())
    return publisher.condemned != [], publisher.swept != []


def looked(world: World) -> int:
    """How often pods are judged within 0.3 s."""
    from kbroker.watch_leader import WatchLeader  # noqa: PLC0415

    leader = WatchLeader(world.config, Kube(Clock()), None, "w")  # type: ignore[arg-type]
    looks = 0

    class Checks:
        async def check(self) -> None:
            nonlocal looks
            looks += 1

    async def run() -> None:
        task = asyncio.create_task(leader._check(Checks()))  # type: ignore[arg-type]
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return looks


def about(least: float, most: float) -> Callable[[float], bool]:
    """Whether something lies between."""
    return lambda seen: least <= seen <= most


PENDING = test_watcher.event()
PULLING = test_watcher.event(**test_watcher.PULL)
ENDED = test_watcher.event(PodState.FAILED)
