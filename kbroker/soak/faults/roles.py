"""Launchers, watchers and schedulers that are killed, stopped and set wrong."""

from __future__ import annotations

import contextlib
import random
import time

from redis import RedisError

from kbroker.soak.faults.api import CREATE, rule
from kbroker.soak.faults.fault import Begin, Heal, fault
from kbroker.soak.processes import SoakProcess
from kbroker.soak.stack import SCHEDULERS, SoakStack

# Until a launcher has a request under way.
_UNDER_WAY = 0.4
_SKEW = 120


def _launcher(stack: SoakStack, rng: random.Random) -> SoakProcess:
    return rng.choice(stack.launchers)


def _kill(stack: SoakStack, rng: random.Random) -> None:
    _launcher(stack, rng).kill()


def _kill_before_create(stack: SoakStack, rng: random.Random) -> None:
    """The request is held up on its way; it is carried out after its sender's death."""
    with rule(stack, CREATE, {"hold_ms": 1000}):
        time.sleep(_UNDER_WAY)
        _launcher(stack, rng).kill()


def _kill_after_create(stack: SoakStack, rng: random.Random) -> None:
    """Pods are created, and nobody is left to hear of it."""
    with rule(stack, CREATE, {"latency_after_ms": 1000}):
        time.sleep(_UNDER_WAY)
        _launcher(stack, rng).kill()


def _pause(stack: SoakStack, rng: random.Random) -> Heal:
    launcher = _launcher(stack, rng)
    launcher.pause()
    return launcher.go_on


def _skew(seconds: int) -> Begin:
    def begin(stack: SoakStack, rng: random.Random) -> Heal:
        launcher = _launcher(stack, rng)
        stack.set_clock(seconds, launcher)
        launcher.kill()

        def heal() -> None:
            stack.set_clock(0, launcher)
            launcher.kill()

        return heal

    return begin


def _kill_leader(stack: SoakStack, _rng: random.Random) -> None:
    stack.leading_watcher().kill()


def _pause_leader(stack: SoakStack, _rng: random.Random) -> Heal:
    leader = stack.leading_watcher()
    leader.pause()
    return leader.go_on


def _pause_leader_and_flush(stack: SoakStack, rng: random.Random) -> Heal:
    heal = _pause_leader(stack, rng)
    with contextlib.suppress(RedisError):
        stack.redis.flushall()
    return heal


def _no_watchers(stack: SoakStack, _rng: random.Random) -> Heal:
    for watcher in stack.watchers:
        watcher.kill(again=False)

    def heal() -> None:
        for watcher in stack.watchers:
            watcher.start()

    return heal


def _scheduler(stack: SoakStack, rng: random.Random) -> tuple[str, SoakProcess]:
    name = rng.choice(SCHEDULERS)
    return name, stack.schedulers[name]


def _kill_scheduler(stack: SoakStack, rng: random.Random) -> Heal:
    _, scheduler = _scheduler(stack, rng)
    scheduler.kill(again=False)
    return scheduler.start


def _replace_scheduler(stack: SoakStack, rng: random.Random) -> Heal:
    """Another executor id takes over what this one wanted."""
    name, scheduler = _scheduler(stack, rng)
    scheduler.kill(again=False)
    scheduler.config = stack.scheduler_config(name, len(scheduler.started_at) + 1)
    return scheduler.start


def _pause_scheduler(stack: SoakStack, rng: random.Random) -> Heal:
    _, scheduler = _scheduler(stack, rng)
    scheduler.pause()
    return scheduler.go_on


FAULTS = [
    fault("launcher_killed", "launchers", _kill, "a launcher gets SIGKILL"),
    fault(
        "launcher_killed_before_create",
        "launchers",
        _kill_before_create,
        "a launcher gets SIGKILL while its creates are on their way",
        local=True,
    ),
    fault(
        "launcher_killed_after_create",
        "launchers",
        _kill_after_create,
        "a launcher gets SIGKILL between create and acknowledgement",
        local=True,
    ),
    fault("launcher_paused", "launchers", _pause, "a launcher is stopped for a while", (0.5, 4)),
    fault(
        "launcher_paused_past_window",
        "launchers",
        _pause,
        "a launcher is stopped for longer than create_window",
        (6, 8),
    ),
    fault(
        "launcher_clock_ahead",
        "launchers",
        _skew(_SKEW),
        "a launcher's clock is two minutes ahead",
        (6, 10),
    ),
    fault(
        "launcher_clock_behind",
        "launchers",
        _skew(-_SKEW),
        "a launcher's clock is two minutes behind",
        (6, 10),
    ),
    fault("leader_killed", "watchers", _kill_leader, "the leading watcher gets SIGKILL"),
    fault(
        "leader_paused",
        "watchers",
        _pause_leader,
        "the leading watcher is stopped for longer than its lease",
        (3, 6),
    ),
    fault(
        "leader_paused_and_flushed",
        "watchers",
        _pause_leader_and_flush,
        "the same, and Redis is emptied meanwhile",
        (3, 6),
    ),
    fault("watchers_down", "watchers", _no_watchers, "no watcher runs", (2, 6)),
    fault(
        "scheduler_killed",
        "schedulers",
        _kill_scheduler,
        "a scheduler gets SIGKILL and comes back with its executor id",
        (0, 4),
    ),
    fault(
        "scheduler_replaced",
        "schedulers",
        _replace_scheduler,
        "a scheduler gets SIGKILL, and another executor id adopts",
        (0, 4),
    ),
    fault(
        "scheduler_paused",
        "schedulers",
        _pause_scheduler,
        "a scheduler is stopped for longer than its lease",
        (3.5, 6),
    ),
]
