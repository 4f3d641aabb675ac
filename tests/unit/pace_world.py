"""Launchers that keep the shared pace of an API server with a limit, in virtual time.

The pace, its scripts and the requests' repetition are the real ones; the API server is a
bucket of tokens, and Redis is in memory, with the virtual clock.
"""

from __future__ import annotations

import asyncio
import random
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import fakeredis.aioredis
from fakeredis.commands_mixins import server_mixin

from kbroker.api_calls import ApiCalls, CallFailed
from kbroker.keys import RedisKeys
from kbroker.kube_client import ApiError
from kbroker.launcher_identity import LauncherIdentity
from kbroker.pace import Lane
from kbroker.redis_client import run_async
from kbroker.retry import ApiFailure
from kbroker.settings import KubernetesSettings, LauncherSettings
from kbroker.shared_pace import SharedPace

from .virtual_time import VirtualLoop

EPOCH = 1_800_000_000.0


@contextmanager
def clocks_of_redis(loop: VirtualLoop) -> Iterator[None]:
    """Let TIME of fakeredis tell the virtual time."""
    real = server_mixin.time
    server_mixin.time = types.SimpleNamespace(time=lambda: EPOCH + loop.time())  # type: ignore[attr-defined]
    try:
        yield
    finally:
        server_mixin.time = real  # type: ignore[attr-defined]


@dataclass
class Server:
    """Takes `rate` creates a second, and `burst` at once; others get 429.

    Attributes:
        retry_after: seconds that a 429 asks for; None for no header.
        latency: of an answer, in seconds.
        counts_removals: whether these take tokens, too.
        created: pods, by launcher.
        requests: times of all requests that take tokens.
        refused: times of the refused ones.
    """

    loop: VirtualLoop
    rng: random.Random
    rate: float = 100.0
    burst: float = 100.0
    retry_after: float | None = 1.0
    latency: float = 0.01
    counts_removals: bool = False
    created: Counter[int] = field(default_factory=Counter)
    requests: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    tokens: float = -1.0
    filled: float = 0.0

    async def create(self, launcher: int) -> None:
        await asyncio.sleep(self.latency * self.rng.uniform(0.5, 1.5))
        self._take()
        self.created[launcher] += 1

    async def remove(self) -> None:
        await asyncio.sleep(self.latency * self.rng.uniform(0.5, 1.5))
        if self.counts_removals:
            self._take()

    def _take(self) -> None:
        now = self.loop.time()
        self.requests.append(now)
        if self.tokens < 0:
            self.tokens = self.burst
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            self.refused.append(now)
            raise ApiError(ApiFailure(429, "TooManyRequests", "busy", self.retry_after))
        self.tokens -= 1


class PaceWorld:
    """Some launchers, one server, and what waits to be created.

    Attributes:
        backlog: launches that wait.
        parked: what became of launches that were given up.
        removed: pods.
        batches: how many were begun.
        calls: how often Redis was asked by other than an explicit look.
        took: for stories to note a moment.
    """

    def __init__(
        self, loop: VirtualLoop, seed: int, *, limit: float = 0.0, **server: float
    ) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.server = Server(loop, random.Random(seed), **server)
        self.redis = fakeredis.FakeServer()
        self.settings = LauncherSettings(max_create_rate=limit)
        self.kubernetes = KubernetesSettings()
        self.backlog = 10**9
        self.parked: Counter[str] = Counter()
        self.removed = self.batches = 0
        self.took = 0.0
        self.launchers: list[PacedLauncher] = []

    @property
    def calls(self) -> int:
        """How often Redis was asked."""
        return sum(launcher.client.asked for launcher in self.launchers)

    def start(self, threads: int = 4, removers: int = 0) -> PacedLauncher:
        """One more launcher."""
        self.launchers.append(PacedLauncher(self, len(self.launchers), threads, removers))
        return self.launchers[-1]

    def state(self) -> dict[str, str]:
        """What Redis holds."""
        found = fakeredis.FakeRedis(server=self.redis).hgetall(RedisKeys().pace("default"))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def close(self) -> None:
        for launcher in self.launchers:
            await launcher.die()


class CountingRedis(fakeredis.aioredis.FakeRedis):
    """Counts pipelines."""

    asked = 0

    def pipeline(self, *args: Any, **options: Any) -> Any:
        self.asked += 1
        return super().pipeline(*args, **options)


class PacedLauncher:
    """What of a launcher keeps the pace: batches of creates, and removals."""

    def __init__(self, world: PaceWorld, number: int, threads: int, removers: int) -> None:
        self.number = number
        self.client = CountingRedis(server=world.redis)
        self._world = world
        rng = random.Random(world.rng.random())
        monotonic, settings, kubernetes = world.loop.time, world.settings, world.kubernetes
        self.pace = SharedPace(
            self.client,
            RedisKeys(),
            "default",
            settings.retry_after_max,
            settings.max_create_rate,
            rng=rng,
            monotonic=monotonic,
            sleep=asyncio.sleep,
        )
        nobody: Any = None
        self._calls = ApiCalls(
            settings,
            kubernetes.retry_budget,
            kubernetes.request_timeout,
            kubernetes.pool_size,
            pace=self.pace,
            identity=LauncherIdentity(nobody, "default", settings, rng=rng),
            rng=rng,
            monotonic=monotonic,
        )
        work = [self._creates() for _ in range(threads)] + [
            self._removes() for _ in range(removers)
        ]
        self._tasks = [asyncio.create_task(step) for step in work]

    async def die(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pace.close()

    async def _creates(self) -> None:
        world = self._world
        while True:
            while not world.backlog:
                await asyncio.sleep(0.01)
            size = min(25, world.backlog)
            world.backlog -= size
            world.batches += 1
            self.pace.heard((await run_async(self.client, [self.pace.look()]))[0])
            deadline = world.loop.time() + world.kubernetes.create_window
            await asyncio.gather(*(self._create(deadline) for _ in range(size)))
            await asyncio.sleep(0.003)

    async def _create(self, deadline: float) -> None:
        world = self._world

        async def request(_timeout: float) -> None:
            await world.server.create(self.number)

        try:
            await self._calls.run(request, deadline=deadline, lane=Lane.CREATE)
        except CallFailed as failure:
            world.parked[f"{failure.decision.action}: {failure.decision.cause}"] += 1
            world.backlog += 1

    async def _removes(self) -> None:
        while True:
            waiting = self._world.server.created.total() - self._world.removed
            await asyncio.gather(*(self._remove() for _ in range(min(25, waiting))))
            await asyncio.sleep(0.05)

    async def _remove(self) -> None:
        """As `PodRemoval` does: when its turn does not come soon, it comes back later."""
        world = self._world

        async def request(_timeout: float) -> None:
            await world.server.remove()

        if not await self._calls.admit_removal(0.5):
            return
        try:
            await self._calls.run(request, lane=Lane.REMOVE)
        except CallFailed:
            return
        if world.removed < world.server.created.total():
            world.removed += 1
            self._calls.removed()
