"""kbroker's processes for one run: Redis, launchers, watchers, and a scheduler with an executor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kbroker.bench import fast_api
from kbroker.bench.config import config_of
from kbroker.bench.cpu import cpu_seconds, members
from kbroker.bench.helper import BenchError, Helper
from kbroker.bench.site import Site
from kbroker.keys import LAUNCHERS_GROUP, RedisKeys
from kbroker.local import worker_process
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.redis_client import connect
from kbroker.soak.processes import SoakProcess

# As long as the limits' own: pods differ in nothing else.
DEPLOYMENT = "bench-kbroker"
_READY_WITHIN = 60.0
_LOOK_EVERY = 0.02
_WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes a stack has.

    Attributes:
        launchers: launcher processes.
        threads: batches at once in each of them.
        watchers: the first leads.
        run: whether the pods are run, or only created.
        settings: further ones, by section.key.
    """

    launchers: int = 2
    threads: int = 4
    watchers: int = 1
    run: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


class Stack:
    """The processes; `with` starts them, waits until all work, and ends them.

    Args:
        site: the cluster.
        folder: logs.
        shape: how many processes.
        say: told the process ids.
        warm: whether the launchers run from the start, and have created pods already.

    Attributes:
        redis: for looking, past the stack.
        scheduler: see `scheduler.Scheduler`.
    """

    def __init__(
        self,
        site: Site,
        folder: Path,
        shape: Shape,
        say: Callable[[str], None],
        *,
        warm: bool = True,
    ) -> None:
        self.site = site
        self.shape = shape
        self._folder = folder
        self._say = say
        self._warm = warm
        self._server = EmbeddedRedis()
        self._processes: list[SoakProcess] = []

    def __enter__(self) -> Stack:
        with contextlib.ExitStack() as started:
            started.callback(self._stop)
            self._start()
            started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        self._server.start()
        self.redis = connect(self._server.url, 5.0)
        self.config = config_of(
            self.site,
            self._folder,
            DEPLOYMENT,
            run=self.shape.run,
            **{"broker.url": self._server.url, **self.shape.settings},
        )
        self.keys = RedisKeys(self.config.broker.prefix)
        kubernetes = self.config.kubernetes
        self._pods = self.keys.pods(kubernetes.cluster, kubernetes.namespace)
        self._queue = self.keys.launch_queue(
            kubernetes.cluster, self.config.broker.default_priority
        )
        module = worker_process.launcher(self.shape.launchers, self.shape.threads, 5.0)
        self.launchers = self._process("launchers", module)
        self.watchers = [
            self._process(f"watcher-{n + 1}", worker_process.WATCHER)
            for n in range(self.shape.watchers)
        ]
        for process in (*self.watchers, *([self.launchers] if self._warm else [])):
            process.start()
        self.scheduler = Helper("scheduler", "kbroker.bench.scheduler", self.config, self._folder)
        self.scheduler.start()
        self.scheduler.receive()
        self.until("the watcher leads", self.watched, _READY_WITHIN)
        if self._warm:
            self.until_launching()
            self.launch("warm", _WARM_UP)
        self.tell_pids()

    def _process(self, name: str, module: tuple[str, ...]) -> SoakProcess:
        process = SoakProcess(name, module, self.config, self._folder / f"{name}.log")
        self._processes.append(process)
        return process

    def _stop(self) -> None:
        for process in self._processes:
            process.kill(again=False)
        if hasattr(self, "scheduler"):
            self.scheduler.stop()
        self._server.stop()

    def tell_pids(self) -> None:
        """Say which processes there are, for profilers."""
        found = {process.name: members(process.pid) for process in self._processes if process.alive}
        found |= {"scheduler": [self.scheduler.pid], "redis": [self._server.pid or 0]}
        if self.site.server is not None:
            found["api-server"] = [self.site.server]
        said = ", ".join(f"{name} {' '.join(map(str, pids))}" for name, pids in found.items())
        self._say(f"process ids: {said}")

    # Looking.

    def pods(self) -> int:
        """How many pods the watcher has seen that are not gone."""
        return int(self.redis.hlen(self._pods))

    def queued(self) -> int:
        """How many launches wait for launchers, or are in their hands."""
        return int(self.redis.xlen(self._queue))

    def used_memory(self) -> int:
        """Bytes that Redis uses."""
        info: Any = self.redis.info("memory")
        return int(info["used_memory"])

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU of each role, so far."""
        watchers = (watcher.pid for watcher in self.watchers)
        spent = {
            "launcher": cpu_seconds(self.launchers.pid),
            "watcher": cpu_seconds(*watchers),
            "scheduler": cpu_seconds(self.scheduler.pid),
            "redis": cpu_seconds(self._server.pid or -1),
        }
        if self.site.server is not None:
            spent["server"] = cpu_seconds(self.site.server)
        return spent

    def until(self, what: str, condition: Callable[[], Any], seconds: float) -> None:
        """Wait for a condition.

        Raises:
            BenchError: it is not met in time, or a process has ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [p.name for p in self._processes if p.wanted and not p.alive]
            if ended:
                raise BenchError(f"{ended[0]} has ended; see {self._folder}/{ended[0]}.log")
            if time.monotonic() > deadline:
                raise BenchError(f"not within {seconds:g} s: {what}; see {self._folder}")
            time.sleep(_LOOK_EVERY)

    def until_launching(self) -> None:
        """Wait until every launcher process waits for work."""
        self.until("the launchers wait for work", self._launching, _READY_WITHIN)

    def _launching(self) -> bool:
        if not self.redis.exists(self._queue):
            return False
        groups: Any = self.redis.xinfo_groups(self._queue)
        return any(
            group["name"].decode() == LAUNCHERS_GROUP and group["consumers"] >= self.shape.launchers
            for group in groups
        )

    @property
    def picture(self) -> tuple[str, str]:
        """The keys of the watcher's picture and of its progress."""
        kubernetes = self.config.kubernetes
        return self._pods, self.keys.watch(kubernetes.cluster, kubernetes.namespace)

    def watched(self) -> bool:
        """Whether a watcher has the whole picture in Redis."""
        return bool(self.redis.hget(self.picture[1], "synced_at"))

    def expect(self, count: int) -> None:
        """See that the picture shows so many pods.

        Raises:
            BenchError: it shows more, or fewer.
        """
        if self.pods() != count:
            raise BenchError(f"the watcher knows {self.pods()} pods, not {count}")

    # Launching.

    def prepare(self, group: str, count: int, first: int = 0) -> None:
        """Have the scheduler make these tasks up."""
        self.scheduler.ask("prepare", group=group, first=first, end=first + count)

    def submit(self, group: str, count: int, first: int = 0) -> float:
        """Have the executor want these tasks; the moment it began, by the monotonic clock."""
        self.prepare(group, count, first)
        return self.submit_prepared()

    def submit_prepared(self) -> float:
        """The same for what was prepared."""
        return float(self.scheduler.ask("submit")["began"])

    def launch(self, group: str, count: int, within: float = 120.0) -> list[tuple[float, int]]:
        """Submit tasks and wait until all their pods exist.

        Returns:
            (monotonic seconds, pods that exist more than before), from the submission on.

        Raises:
            BenchError: they do not all come to exist in time.
        """
        before = self.pods()
        began = self.submit(group, count)
        return [(began, 0), *self.grow(before, count, within)]

    def grow(self, before: int, count: int, within: float = 120.0) -> list[tuple[float, int]]:
        """Wait until so many more pods exist; raises and returns likewise."""
        seen: list[tuple[float, int]] = []

        def there() -> bool:
            seen.append((time.monotonic(), self.pods() - before))
            return seen[-1][1] >= count

        self.until(f"{count} pods exist", there, within)
        if seen[-1][1] != count:
            raise BenchError(f"{seen[-1][1]} pods exist instead of {count}")
        return seen

    def shorten(self, count: int) -> None:
        """Take all but the newest so many launches out of the queue, behind everybody's back."""
        self.redis.xtrim(self._queue, maxlen=count, approximate=False)

    def until_over(self, within: float = 60.0) -> float:
        """Wait until nothing runs and no pod is left; the moment, by the monotonic clock.

        Raises:
            BenchError: it is not so in time.
        """
        self.until("no task is left", lambda: not self.redis.exists(self.keys.tasks), within)
        self.until("no pod is left", lambda: not self.pods(), within)
        return time.monotonic()

    def check(self, group: str, count: int) -> None:
        """See that the pods of so many tasks of a group exist, by the API server's own word.

        Raises:
            BenchError: there are more, or fewer.
        """
        found = asyncio.run(fast_api.count(self.config, f"{group}-"))
        if found != count:
            raise BenchError(f"the API server has {found} pods of {group}, not {count}")

    def sweep(self) -> None:
        """Remove all pods; the stack is of no use afterwards."""
        for process in self._processes:
            process.kill(again=False)
        asyncio.run(fast_api.sweep(self.config))

    def noted(self) -> dict[str, Any]:
        """What the scheduler noted since the last call; see `Scheduler`.

        Raises:
            BenchError: a task has failed.
        """
        noted = self.scheduler.ask("take")
        if noted["failed"]:
            raise BenchError(f"{len(noted['failed'])} tasks failed: {noted['failed'][0]}")
        return noted
