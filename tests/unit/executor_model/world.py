"""Real executors, a real launcher and a real watcher around a played cluster and a played broker.

Played is what lies between them: which message is delivered when and how often, which request
arrives, which answer is heard, which watch event comes next, who dies, what time it is.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

import fakeredis
import orjson

from kbroker.errors import BrokerUnavailableError, LeaseLostError
from kbroker.event import Cause, Outcome
from kbroker.event_buffer import FAILED, SUCCESS
from kbroker.event_publisher import EventPublisher
from kbroker.executor import KubernetesExecutor
from kbroker.keys import LAUNCHERS_GROUP, RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launcher import Launcher
from kbroker.lease import Lease, LeaseState
from kbroker.message import LaunchRequest
from kbroker.pod import Pod
from kbroker.pod_checks import PodChecks
from kbroker.queue_entry import QueueEntry, Unfinished
from kbroker.redis_client import availability, run
from kbroker.task import Launch, TaskKey
from kbroker.watcher import KubernetesJobWatcher
from kbroker.work_item import WorkItem, dead, settled
from tests.records import Records
from tests.unit.executor_model.cluster import Cluster, Stored
from tests.unit.executor_model.virtual_time import Clock, VirtualLoop

PLACE = ("default", "default")
SETTINGS = {
    "core.deployment": "prod",
    "core.executor_lease": 20.0,
    "core.reconcile_interval": 5.0,
    "core.relaunch_limit": 2,
    "core.launch_timeout": 600.0,
    "broker.url": "redis://played",
    "broker.record_ttl": 3600.0,
    "kubernetes.image": "image",
    "kubernetes.create_window": 8.0,
    "kubernetes.retry_budget": 2.0,
    "launcher.park_base": 1.0,
    "launcher.park_max": 4.0,
    "launcher.park_lease": 10.0,
    "watcher.lease": 20.0,
    "watcher.pending_timeout": 60.0,
    "watcher.orphan_after": 600.0,
}
RECORD_TTL = 3600.0


@dataclass(eq=False)
class Job:
    """A launcher works on one message, or on what is parked."""

    task: asyncio.Task[None]
    name: str


@dataclass
class Want:
    """A launch as the scheduler's database has it."""

    launch: Launch
    owner: str
    revoked: bool = False
    cancelled: bool = False
    lost: bool = False  # its executor has died
    over: tuple[str, Outcome] | None = None

    @property
    def request(self) -> LaunchRequest:
        return LaunchRequest(self.launch.key, ["true"], self.launch.launch_id)

    @property
    def wanted(self) -> bool:
        return not self.revoked and self.over is None


class Term:
    """One watcher's leadership."""

    def __init__(self, world: World) -> None:
        self.cluster = world.cluster
        self.lease = Lease(world.redis, world.keys.lease(*PLACE), world.config.watcher.lease)
        assert self.lease.acquire()
        self.publisher = EventPublisher(
            world.async_redis, world.records, PLACE, token=self.lease.token, leader="watcher"
        )
        self.watcher = KubernetesJobWatcher(
            "default",
            self.publisher,
            None,
            "watcher",
            config=world.config,
            kube=world.cluster,  # type: ignore[arg-type]
            clock=world.clock,
        )
        self.checks = PodChecks(
            self.watcher.table, self.publisher, world.config.watcher, clock=world.clock
        )
        self.cursor: int | None = None
        self.finish = world.loop.finish

    def begin(self) -> None:
        """Resume where the last leader was, or list."""
        # The client that DELETED events are checked with, and the picture.
        self.finish(self.watcher._reflector(self.cluster))
        progress = self.finish(self.publisher.progress())
        if progress.synced_at and progress.checkpoint is not None:
            later = (i for i, (_, p) in enumerate(self.cluster.log) if self._after(p, progress))
            self.cursor = next(later, len(self.cluster.log))
        else:
            self.list_all()

    @staticmethod
    def _after(pod: Any, progress: Any) -> bool:
        return bool(pod.resource_version > progress.checkpoint)

    def renew(self) -> None:
        """As a leader does all the time.

        Raises:
            LeaseLostError: it leads no longer.
        """
        if self.lease.renew() is not LeaseState.HELD:
            raise LeaseLostError("the lease has run out")

    def list_all(self, *, breaks: bool = False) -> None:
        """A list; it may break before its end."""
        self.finish(self.watcher.relisting(False))
        pods = [Pod.decode(pod.encode()) for pod in self.cluster.pods.values()]
        self.finish(self.watcher.page(pods))
        if not breaks:
            self.finish(self.watcher.listed(self.cluster.version))
            self.cursor = len(self.cluster.log)

    def watch(self, count: int) -> None:
        """The next events come."""
        assert self.cursor is not None
        batch = self.cluster.log[self.cursor : self.cursor + count]
        if batch:
            prompt, self.cluster.prompt = self.cluster.prompt, True
            try:
                self.finish(self.watcher.events(batch))
            finally:
                self.cluster.prompt = prompt
            self.cursor += len(batch)

    def bookmark(self) -> None:
        """The watch is up to date, if it is."""
        if self.cursor == len(self.cluster.log):
            self.finish(self.watcher.bookmark(self.cluster.version))


@dataclass
class World:
    """Nobody lives yet."""

    NAMES: ClassVar[tuple[str, ...]] = ("exec-a", "exec-b")

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(self.clock.everywhere())
        self.loop = VirtualLoop(self.clock)
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeStrictRedis(server=self.server)
        self.async_redis = fakeredis.FakeAsyncRedis(server=self.server)
        self.config = KubeConfig.from_values(**SETTINGS)
        self.keys = RedisKeys(self.config.broker.prefix)
        self.records = Records(self.keys, RECORD_TTL, self.config.kubernetes.create_window)
        self.cluster = Cluster(self.clock, on_delete=self._may_go)
        self.launcher = Launcher(
            self.cluster,  # type: ignore[arg-type]
            self.async_redis,
            self.config,
            rng=random.Random(1),
            monotonic=self.clock,
        )
        self.executors: dict[str, KubernetesExecutor] = {}
        self.term: Term | None = None
        self.jobs: list[Job] = []
        self.deliveries: dict[tuple[str, str], int] = {}
        self.wants: dict[Launch, Want] = {}
        self.unsaid: list[Want] = []
        self.orphans_allowed = False

    def close(self) -> None:
        """End everything."""
        for job in self.jobs:
            job.task.cancel()
        self.loop.run_until_idle()
        self.loop.close()
        self._stack.close()

    def pass_time(self, seconds: float) -> None:
        """Time passes for everybody."""
        self.clock.advance(seconds)
        self.work()

    # Executors, and the scheduler that asks them.

    def start_executor(self, name: str) -> KubernetesExecutor:
        """A process with this executor id starts; its predecessor's lease runs out first."""
        config = KubeConfig.from_values(**SETTINGS, **{"core.executor_id": name})
        executor = KubernetesExecutor(
            config,
            redis=fakeredis.FakeStrictRedis(server=self.server),
            clock=self.clock,
            monotonic=self.clock,
        )
        executor.start()
        self.executors[name] = executor
        # What it let go of, or revoked, before it died may not have been said.
        for want in self.wants.values():
            if want.owner == name and not want.wanted:
                self.unsaid.append(want)
        return executor

    def recover(self, name: str) -> None:
        """The scheduler's part after a start: adopt what a dead executor ran, withdraw the rest."""
        orphaned = [
            want
            for want in self.wants.values()
            if want.wanted and want.lost and (want.owner == name or not self.alive(want.owner))
        ]
        if orphaned:
            self.adopt(name, orphaned)
        mine = [w for w in self.unsaid if w.owner == name]
        if mine:
            withdrawn = [(w.launch.attempt(1), *PLACE, "it is over") for w in mine]
            self.executors[name].scheduler.withdraw(withdrawn)
            self.unsaid = [w for w in self.unsaid if w not in mine]

    def alive(self, name: str) -> bool:
        """Whether an executor seems to live: it holds its lease."""
        return bool(self.redis.exists(self.keys.executor(name)))

    def crash(self, name: str) -> None:
        """An executor's process dies."""
        del self.executors[name]
        for want in self.wants.values():
            want.lost = want.lost or want.owner == name

    def want(self, owner: str, key: TaskKey) -> Want:
        """The scheduler queues a task try, anew if it was queued before."""
        launch = Launch("prod", key, f"launch-{len(self.wants) + 1}")
        for older in self.wants.values():
            if older.launch.key == key:
                older.revoked = True
        want = self.wants[launch] = Want(launch, owner)
        self.executors[owner].execute_async(key, ["true"], launch_id=launch.launch_id)
        return want

    def adopt(self, owner: str, wants: list[Want]) -> None:
        """The scheduler gives what a dead executor ran to another one, or to its successor."""
        for want in wants:
            want.owner, want.lost = owner, False
        refused = self.executors[owner].adopt([want.request for want in wants])
        for request in refused:
            want = next(w for w in wants if w.launch.launch_id == request.launch_id)
            assert want.revoked or want.cancelled, f"{want} was not adopted"

    def hand_out(self, owner: str) -> None:
        """The scheduler takes the events."""
        for key, (state, info) in self.executors[owner].get_event_buffer().items():
            launch_id = info.launch_id if isinstance(info, Outcome) else info
            want = self.wants[Launch("prod", key, launch_id)]
            assert want.owner == owner, f"{owner} speaks of {want}"
            assert not want.revoked, f"{state} of a launch that nobody wants: {want}"
            assert want.over is None, f"{state} after the end: {want}"
            if state in (SUCCESS, FAILED):
                assert isinstance(info, Outcome)
                want.over = (state, info)
                self._is_true(want, state, info)

    def _is_true(self, want: Want, state: str, outcome: Outcome) -> None:
        succeeded = want.launch in self.cluster.succeeded
        if state == SUCCESS:
            assert succeeded, f"nothing succeeded: {want}"
        else:
            # A user's word stands, and what nobody saw nobody knows.
            unseen = outcome.cause in (Cause.CANCELLED, Cause.VANISHED)
            assert unseen or not succeeded, f"it succeeded: {want}"

    def lead(self) -> None:
        """A watcher takes over, if nobody leads."""
        if not self.redis.exists(self.keys.lease(*PLACE)):
            self.term = Term(self)
            self.term.begin()

    # The broker.

    def entries(self, queue: str) -> list[tuple[str, bytes]]:
        """What stands on a queue."""
        found: Any = self.redis.xrange(queue)
        return [(entry.decode(), fields[b"message"]) for entry, fields in found]

    @property
    def queues(self) -> list[str]:
        """The launch queue and the delete queue."""
        return [self.keys.launch_queue("default", "normal"), self.keys.delete_queue("default")]

    def deliver(self, queue: str, entry: str, raw: bytes, *, dies: bool = False) -> None:
        """A launcher gets a message, perhaps not for the first time.

        Args:
            queue: full key of the queue.
            entry: stream id.
            raw: the message.
            dies: the launcher is killed before it acknowledges.
        """
        count = self.deliveries[queue, entry] = self.deliveries.get((queue, entry), 0) + 1
        message = orjson.loads(raw)
        one = QueueEntry(
            entry, queue, message["actor_name"], tuple(message["args"]), {}, count, raw
        )
        if count > self.config.broker.max_deliveries:
            item = WorkItem.from_entry(one)
            reason = "it was delivered too often"
            run(self.redis, settled(self.records, "default", item, dead(item, "default", reason)))
            return
        launches = "launch." in queue
        work = self.launcher.launch if launches else self.launcher.delete

        async def consume() -> None:
            with suppress(Unfinished, BrokerUnavailableError), availability():
                await work([one])
                if not dies:
                    await self.async_redis.xdel(queue, entry)

        self._begin(consume(), "launch" if launches else "delete")

    def drain(self) -> None:
        """A launcher looks for what is parked and due."""

        async def drain() -> None:
            with suppress(BrokerUnavailableError):
                await self.launcher.drain()

        self._begin(drain(), "launch")

    def _begin(self, work: Any, name: str) -> None:
        self.jobs.append(Job(self.loop.create_task(work), name))
        self.work()

    def work(self) -> None:
        """Launchers do what they can do now."""
        self.loop.run_until_idle()
        for job in [job for job in self.jobs if job.task.done()]:
            self.jobs.remove(job)
            job.task.result()

    def kill(self, job: Job) -> None:
        """A launcher dies; what it has sent is on its way."""
        job.task.cancel()
        self.loop.run_until_idle()
        self.jobs.remove(job)

    # The cluster.

    def _may_go(self, pod: Stored) -> None:
        """A launcher deletes a pod: only what is over, or nobody wants, or never ran."""
        want = self.wants[pod.attempt.launch]
        wanted = want.wanted and not want.cancelled
        assert not (wanted and pod.ran), f"{pod} is deleted while it is wanted"

    # Redis.

    def redis_may_be_lost(self) -> bool:
        """Whether somebody else still knows of every container that has started.

        The hole: Redis is lost after a pod that ran was deleted because it was cancelled, and
        before its executor heard of that. Nobody is left who knows of it.
        """
        for want in self.wants.values():
            gone = set(self.cluster.starts[want.launch]) - {
                p.uid for p in self.cluster.pods.values()
            }
            if gone and want.wanted and want.cancelled:
                return False
        return True

    def lose_redis(self) -> None:
        """FLUSHALL."""
        self.redis.flushall()
        self.redis.xgroup_create(self.queues[0], LAUNCHERS_GROUP, id="0", mkstream=True)
        # docs/architecture.md: "FLUSHALL, at a moment when deletions are parked, leaves
        # finished pods until `watcher.orphan_after`".
        self.orphans_allowed = True
