"""After every way in which a task can end, Redis holds what it held before, and closed records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbroker.event import Cause
from kbroker.message import LaunchMessage
from kbroker.redis_client import run as call
from kbroker.task import Launch
from tests.integration.stack import Run, Stack, running
from tests.records import Records

NO_IMAGE = {"image": "nowhere.invalid/busybox:1"}
ENDS = {
    "succeeds": ("success", None, 1),
    "fails": ("failed", Cause.ERROR, 1),
    "relaunched": ("failed", Cause.IMAGE_PULL, 2),
    "cancelled": ("failed", Cause.CANCELLED, 1),
    "unreadable": ("failed", Cause.DEAD, 1),
}
REVOKED = ("revoked", "lost")
RUNNING = ("cancelled", *REVOKED)


def record(run: Run, task: str) -> str:
    """Key of a task's launch record."""
    return run.stack.keys.task(launch(run, task).digest)


def launch(run: Run, task: str) -> Launch:
    """The launch of a task."""
    return Launch("kbroker", run.key(task), f"{run.name}-{task}")


def held(stack: Stack) -> dict[str, int]:
    """Key → how much it holds, of every key that does not expire."""
    redis = stack.redis
    sizes: dict[bytes, Any] = {b"stream": redis.xlen, b"hash": redis.hlen, b"zset": redis.zcard}
    found = {}
    for name in redis.scan_iter():
        if redis.pttl(name) == -1:
            found[name.decode()] = sizes[redis.type(name)](name)
    return found


def unreadable(message: LaunchMessage) -> dict[str, Any]:
    """The message as a kbroker with a bug would write it."""
    return {**WRITTEN(message), "command": "not a list"}


WRITTEN = LaunchMessage.as_dict


def want_everything(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Want a task for every way to end."""
    run.submit("succeeds")
    run.want("fails", ["sh", "-c", "exit 3"])
    run.want("relaunched", ["true"], executor_config=NO_IMAGE)
    run.submit(*RUNNING, seconds=60)
    run.beat()
    with monkeypatch.context() as patch:
        patch.setattr(LaunchMessage, "as_dict", unreadable)
        run.submit("unreadable")
        run.beat()


def test_every_key_after_every_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"kubernetes__create_window": 1.5, "kubernetes__retry_budget": 1.0}
    with running(tmp_path, launchers=1, core__relaunch_limit=1, **settings) as stack:
        run = Run(stack, stack.executor())
        run.submit("first")
        run.finish()
        keys = stack.keys
        run.until("its pod is gone", lambda: not stack.redis.exists(keys.pods(*PLACE)))
        before = held(stack)
        queues = [keys.launch_queue("default", p) for p in ("high", "normal", "low")]
        assert before == {
            **dict.fromkeys([*queues, keys.delete_queue("default"), keys.results("exec-1")], 0),
            keys.watch(*PLACE): stack.redis.hlen(keys.watch(*PLACE)),
            keys.executors: 1,
        }

        want_everything(run, monkeypatch)
        run.until("they run", lambda: all(stack.starts()[task] for task in RUNNING))
        run.until("it is known", lambda: not any(run.executor.waiting(run.key(t)) for t in RUNNING))
        records = Records(keys, 60.0, 1.5)
        call(stack.redis, [records.cancel(launch(run, "cancelled").digest, "by a user")])
        stack.redis.delete(record(run, "lost"))
        for task in REVOKED:
            assert run.executor.revoke(run.key(task))
        assert stack.redis.hget(record(run, "lost"), "state") == b"withdrawn"  # a tombstone
        run.until("every other task is final", lambda: len(run.finals) == 1 + len(ENDS))

        after = {**before, keys.dead: 1}
        run.until("all is as before", lambda: held(stack) == after, 10)
        assert run.executor.running == set()
        for task, end in ENDS.items():
            ((state, outcome),) = run.finals[task]
            assert (state, outcome.cause, outcome.attempts) == end, task
        assert not set(REVOKED) & set(run.finals)
        expiring = {name.decode() for name in stack.redis.scan_iter() if stack.redis.pttl(name) > 0}
        assert expiring == {
            *(record(run, task) for task in ("first", *ENDS, *REVOKED)),
            keys.executor("exec-1"),
            keys.lease(*PLACE),
            keys.pace("default"),
        }

        assert run.executor.end()
        del after[keys.results("exec-1")], after[keys.executors]
        assert held(stack) == after
        assert not stack.redis.exists(keys.executor("exec-1"))
        stack.kill()


PLACE = ("default", "default")
