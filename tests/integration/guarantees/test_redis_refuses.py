"""A Redis that answers and refuses: nobody dies, nothing is lost, and the log says so once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from kbroker.errors import BrokerUnavailableError
from kbroker.event import PodState, Started
from kbroker.event_publisher import EventPublisher
from kbroker.redis_client import connect, connect_async
from tests.integration.scene import PLACE, Scene, key, poll
from tests.integration.stack import Run, Stack, running

REFUSED = 0.6
# A process has some threads and loops that each say it.
LINES = 12


@contextlib.contextmanager
def settings(stack: Stack, **values: object) -> Iterator[None]:
    """Redis has these settings meanwhile."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: stack.redis.config_get(name)[name] for name in names}
    for name, value in names.items():
        stack.redis.config_set(name, value)
    yield
    for name, value in before.items():
        stack.redis.config_set(name, value)


@contextlib.contextmanager
def readonly(stack: Stack) -> Iterator[None]:
    """It is the replica of a server that is not there."""
    stack.redis.replicaof("127.0.0.1", 1)
    yield
    stack.redis.replicaof("NO", "ONE")


@contextlib.contextmanager
def out_of_memory(stack: Stack) -> Iterator[None]:
    """Its memory is full."""
    with settings(stack, maxmemory_policy="noeviction", maxmemory=1):
        yield


@contextlib.contextmanager
def cannot_save(stack: Stack) -> Iterator[None]:
    """Its last snapshot failed."""
    in_the_way = Path(stack.redis.config_get("dir")["dir"]) / "dump.rdb"
    in_the_way.mkdir()
    with settings(stack, stop_writes_on_bgsave_error="yes", save="3600 1"):
        stack.redis.bgsave()
        info = stack.redis.info
        poll("it failed", lambda: info("persistence")["rdb_last_bgsave_status"] == "err")
        yield
    in_the_way.rmdir()
    stack.redis.bgsave()
    poll("it is saved", lambda: info("persistence")["rdb_last_bgsave_status"] == "ok")


@contextlib.contextmanager
def busy(stack: Stack) -> Iterator[None]:
    """Somebody's script does not end."""

    def loop() -> None:
        with contextlib.suppress(redis.RedisError), connect(url, 30.0) as client:
            client.eval("while true do end", 0)

    url = stack.redis_server.url
    with settings(stack, busy_reply_threshold=20):
        thread = threading.Thread(target=loop)
        thread.start()
        poll("it is busy", lambda: _refuses(stack))
        yield
        stack.redis.script_kill()
        thread.join()
        poll("it works", lambda: not _refuses(stack))


def _refuses(stack: Stack) -> bool:
    try:
        stack.redis.ping()
    except redis.ResponseError:
        return True
    return False


REFUSALS: dict[str, Callable[[Stack], contextlib.AbstractContextManager[None]]] = {
    "READONLY": readonly,
    "OOM": out_of_memory,
    "MISCONF": cannot_save,
    "BUSY": busy,
}


def refused(run: Run, name: str) -> None:
    """Tasks that run when the refusal begins, and such as are wanted meanwhile."""
    before, during = f"{name}-before", f"{name}-during"
    run.submit(before, seconds=0.5)
    run.until("it runs", lambda: run.stack.starts()[before])
    with REFUSALS[name](run.stack):
        run.submit(during)
        end = time.monotonic() + REFUSED
        while time.monotonic() < end:
            begun = time.monotonic()
            run.beat()
            assert time.monotonic() - begun < 1.0
            time.sleep(0.02)
        assert run.executor.waiting(run.key(during)) == "Redis does not answer"


def test_every_way_to_refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, launchers=1) as stack:
        run = Run(stack, stack.executor())
        for name in REFUSALS:
            refused(run, name)
            run.until("Redis is back", lambda: not run.executor._redis.away)
        run.finish()
        run.assert_each_ran_once()
        assert all(process.alive for process in stack.processes), stack.logs()
        for process in stack.processes:
            said = process.log.read_text()
            assert "Traceback" not in said, said
            away = ("Redis is not available", "Redis refuses")
            warnings = [x for x in said.splitlines() if any(words in x for words in away)]
            assert 0 < len(warnings) <= LINES * len(REFUSALS), said
        records = [r for r in caplog.records if r.levelno >= logging.WARNING]
        actions = [getattr(record, "action", "") for record in records]
        assert actions.count("redis-away") == actions.count("redis-back") == len(REFUSALS)
        run.executor.end()
        stack.kill()


async def test_an_event_is_not_passed_over_when_only_it_was_refused(redis_url: str) -> None:
    scene = Scene(redis_url)
    scene.lead()
    executor = scene.executor()
    tasks = [f"task-{number:03}" for number in range(150)]
    for task in tasks:
        executor.execute_async(key(task), ["true"])
    executor.heartbeat()
    attempts = [message.attempt for message in scene.queued()]
    for attempt in attempts:
        scene.launched(attempt)
    checkpoint = scene.version
    # Memory that is full, or a script that runs for long, may refuse one command of a pipeline
    # and not the next; here it is certain.
    refused = 75
    others = ("executors", "pods:*", "watch:*", "lease:*", "results:*")
    records = [f"task:{a.launch.digest}" for n, a in enumerate(attempts) if n != refused]
    patterns = [scene.keys.prefix + name for name in (*others, *records)]
    scene.redis.acl_setuser("half", enabled=True, nopass=True, categories=["+@all"], keys=patterns)
    client = connect_async(redis_url.replace("redis://", "redis://half:any@"), 5.0)
    publisher = EventPublisher(
        client, scene.records, PLACE, token=scene.watch_lease.token, leader="half"
    )
    for attempt in attempts:
        publisher.put(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0, started=Started.YES))
    with pytest.raises(BrokerUnavailableError):
        await publisher.flush()
    progress = await publisher.progress()
    await client.aclose()
    scene.redis.acl_deluser("half")
    executor.heartbeat()
    said = {key.task_id: state for key, (state, _) in executor.get_event_buffer().items()}
    entered = [state for _, state in sorted(said.items())].index("running")
    # Whoever leads next goes on from here: nothing that follows the refused one has entered.
    assert 0 < entered <= refused
    assert said == {task: "success" if n < entered else "running" for n, task in enumerate(tasks)}
    assert progress.checkpoint == checkpoint + entered
    executor.end()
