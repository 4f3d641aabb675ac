"""A launcher process: `dramatiq workers.launcher`.

Queues: `launch.<cluster>.<priority>`, the most urgent first, `delete.<cluster>`, and
`secrets.<cluster>` where `kubernetes.gcp_service_account_keys` names files. Beside them
`logs.<cluster>`, see `kbroker.log_service`.
The configuration comes from $KBROKER_CONFIG and KBROKER__ variables. What keeps a
launcher from working at all ends it before it takes a message, with one line and
exit code 1 (2 for a wrong configuration); dramatiq then ends the other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import dramatiq
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.middleware import Middleware

from kbroker.broker import DaemonAsyncIO, StreamsBroker
from kbroker.errors import BrokerUnavailableError, ConfigError, KbrokerError, MissingExtraError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launcher_record import LauncherRecords
from kbroker.queue_entry import DeadEntry, QueueEntry, Unfinished
from kbroker.redis_client import availability, connect_async, place, run
from kbroker.service_account_key import read_keys
from workers.memory import boot_is_over

log = logging.getLogger(__name__)

T = TypeVar("T")

GROUP_SIGNAL_WITHIN = 1.0


def give_up(error: KbrokerError) -> NoReturn:
    """End this process with one line."""
    # dramatiq has put a pipe in place of sys.stderr whose reader may stop before us.
    print(f"launcher: error: {error}", file=sys.__stderr__, flush=True)
    raise SystemExit(error.exit_code)


def or_give_up(step: Callable[[], T]) -> T:
    """The result of `step`, unless the user has to correct something first."""
    try:
        return step()
    except KbrokerError as error:
        give_up(error)


def configured() -> KubeConfig:
    """The configuration, with a Redis to work with."""
    config = KubeConfig.load()
    if not config.broker.url:
        raise ConfigError(
            "broker.url is empty: a launcher needs the Redis of its executors; "
            "set KBROKER__BROKER__URL=redis://host:port"
        )
    return config


try:
    from kbroker.drain_loop import drain_loop
    from kbroker.kube_client import KubeClient
    from kbroker.launcher import Launcher
    from kbroker.launcher_identity import check_permissions, lacking_for_logs
    from kbroker.log_reading import LogReading
    from kbroker.log_service import BLOCK, LogService
    from kbroker.manifests import Manifests
    from kbroker.secret_creation import read_key
    from kbroker.work_item import WorkItem, dead
except ModuleNotFoundError:
    give_up(MissingExtraError("the launcher", "kubernetes"))

config = or_give_up(configured)
keys = read_keys(config.kubernetes.gcp_service_account_keys)


def take_group_signals_once() -> None:
    """Stop gracefully when the whole process group gets SIGTERM, as honcho and others send it.

    The worker then gets it twice, from the sender and from dramatiq's parent, and the
    second time means "at once" to dramatiq.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        return
    last = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now, before = time.monotonic(), last
        last = now
        if now - before > GROUP_SIGNAL_WITHIN:
            handler(number, frame)

    signal.signal(signal.SIGTERM, handle)


def let_others_finish() -> None:
    """Interrupt nobody when an answer comes, where Linux lets a process say so; see sched(7).

    A launcher has many requests under way, and the processor is better used by whoever works on
    them, be it an API server or a Redis on the same machine.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def on_loop(step: Awaitable[T]) -> T:
    """Run a coroutine on dramatiq's event loop and wait for it."""
    thread = get_event_loop_thread()
    if thread is None:
        raise RuntimeError("dramatiq's event loop does not run")
    return thread.run_coroutine(step)


class LauncherProcess(Middleware):
    """The launcher of this process, on dramatiq's event loop."""

    launcher: Launcher

    @property
    def actor_options(self) -> set[str]:
        """`throws`: exceptions of an actor that are answers, and logged without a traceback."""
        return {"throws"}

    def after_process_boot(self, _broker: dramatiq.Broker) -> None:
        """See that the launcher can work, before it takes any message."""
        let_others_finish()
        take_group_signals_once()
        or_give_up(lambda: asyncio.run(self._check()))

    def before_worker_boot(self, _broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Connect, on the event loop that the actors will run on."""

        def ready_changed(ready: bool) -> None:
            for consumer in worker.consumers.values():
                consumer.resume() if ready else consumer.pause()

        # Every thread has a batch in hand and one waits; the rest is for other launchers.
        worker.queue_prefetch = min(worker.queue_prefetch, worker.worker_threads + 1)
        try:
            on_loop(self._start(ready_changed))
        except Exception as error:
            # The event loop's thread would keep a process alive that cannot work.
            print(f"launcher: error: {error}", file=sys.__stderr__, flush=True)
            os._exit(1)

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        """Disconnect."""
        on_loop(self._stop())

    async def _check(self) -> None:
        Manifests(config.kubernetes)
        for key in keys.values():
            read_key(key)
        client = connect_async(config.broker.url, config.broker.socket_timeout)
        try:
            with availability():
                await client.ping()
        except BrokerUnavailableError as error:
            raise BrokerUnavailableError(
                f"no Redis at {place(config.broker.url)} ({error}): is it up, and broker.url right?"
            ) from error
        finally:
            await client.aclose()
        kube = await KubeClient.connect(config.kubernetes)
        try:
            await kube.check_namespace(config.kubernetes.namespace)
            await check_permissions(kube, config.kubernetes.namespace)
            for lack in await lacking_for_logs(kube, config.kubernetes.namespace):
                log.warning("tasks' logs cannot be shown in full: %s", lack)
        finally:
            await kube.close()

    async def _start(self, ready_changed: Callable[[bool], None]) -> None:
        self._redis = connect_async(config.broker.url, config.broker.socket_timeout)
        self._kube = await KubeClient.connect(config.kubernetes)
        self.launcher = Launcher(self._kube, self._redis, config, ready_changed=ready_changed)
        self._waiting = connect_async(config.broker.url, BLOCK + config.broker.socket_timeout)
        logs = LogService(
            LogReading(self._kube),
            self._waiting,
            RedisKeys(config.broker.prefix),
            config.kubernetes.cluster,
            refusal=lambda: self.launcher.refusal,
        )
        draining = drain_loop(self.launcher, config.launcher.drain_interval)
        self._loops = [asyncio.create_task(loop) for loop in (draining, logs.run())]
        boot_is_over()

    async def _stop(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.launcher.close()
        await self._kube.close()
        await self._waiting.aclose()
        await self._redis.aclose()


def bury(entry: DeadEntry) -> None:
    """Record a message that was delivered too often, or is none."""
    body = entry.entry.args[0] if entry.entry is not None and entry.entry.args else None
    item = WorkItem(entry.id, entry.queue, body, entry.raw)
    outcome = dead(item, config.kubernetes.cluster, entry.reason)
    run(
        broker.client,
        [records.bury(entry.queue, entry.id, outcome.reason, entry.raw, outcome.event)],
    )


async def launch(entries: list[QueueEntry]) -> None:
    """Create pods."""
    await process.launcher.launch(entries)


async def delete(entries: list[QueueEntry]) -> None:
    """Remove pods."""
    await process.launcher.delete(entries)


async def secret(entries: list[QueueEntry]) -> None:
    """Create or replace Secrets."""
    await process.launcher.put_secrets(entries)


def declare_actors() -> None:
    """One actor for each queue; what is more urgent goes first within the process, too."""
    cluster, settings = config.kubernetes.cluster, config.broker
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "throws": (Unfinished, BrokerUnavailableError),
    }
    for urgency, priority in enumerate(settings.priorities):
        dramatiq.actor(
            actor_name=f"launch.{priority}",
            queue_name=f"launch.{cluster}.{priority}",
            priority=urgency,
            **options,
        )(launch)
    dramatiq.actor(
        actor_name="delete",
        queue_name=f"delete.{cluster}",
        priority=len(settings.priorities),
        **options,
    )(delete)
    if keys:  # it is for those that have the files
        dramatiq.actor(
            actor_name="secret",
            queue_name=f"secrets.{cluster}",
            priority=len(settings.priorities),
            **options,
        )(secret)


with contextlib.suppress(ModuleNotFoundError):
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

records = LauncherRecords(
    RedisKeys(config.broker.prefix), config.broker.record_ttl, config.kubernetes.create_window
)
process = LauncherProcess()
broker = or_give_up(
    lambda: StreamsBroker(
        config.broker.url,
        prefix=config.broker.prefix,
        redelivery_after=config.broker.redelivery_after,
        max_deliveries=config.broker.max_deliveries,
        middleware=[DaemonAsyncIO(), process],
        bury=bury,
    )
)
dramatiq.set_broker(broker)
declare_actors()
