"""Redis that is lost, emptied, refuses to write, or does not answer."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

from kbroker.soak.faults.fault import Begin, Heal, fault, on_the_way
from kbroker.soak.stack import SoakStack

_LANE = "redis"
# Nobody listens there: a replica of it has no master, and refuses writes.
_NO_MASTER = ("127.0.0.1", "1")


def _restart(*, keep_data: bool) -> Begin:
    def begin(stack: SoakStack, _rng: random.Random) -> None:
        stack.redis_server.restart(keep_data=keep_data)

    return begin


def _away(*, keep_data: bool) -> Begin:
    def begin(stack: SoakStack, _rng: random.Random) -> Heal:
        stack.redis_way.refuse()

        def heal() -> None:
            stack.redis_server.restart(keep_data=keep_data)
            stack.redis_way.behave()

        return heal

    return begin


def _flush(stack: SoakStack, _rng: random.Random) -> None:
    stack.redis.flushall()


def _stopped(stack: SoakStack, _rng: random.Random) -> Heal:
    pid = stack.redis_server.pid or 0
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def _read_only(stack: SoakStack, _rng: random.Random) -> Heal:
    stack.redis.replicaof(*_NO_MASTER)
    return lambda: stack.redis.replicaof("NO", "ONE")


def _full(stack: SoakStack, _rng: random.Random) -> Heal:
    stack.redis.config_set("maxmemory", 1)
    return lambda: stack.redis.config_set("maxmemory", 0)


def _way(behaviour: str, *arguments: Any) -> Begin:
    """Everybody's way to Redis behaves so while it lasts."""
    return on_the_way(lambda stack: stack.redis_way, behaviour, *arguments)


FAULTS = [
    fault("redis_restarted", _LANE, _restart(keep_data=True), "killed, back with its data"),
    fault("redis_emptied", _LANE, _restart(keep_data=False), "killed, back without data"),
    fault("redis_flushed", _LANE, _flush, "FLUSHALL"),
    fault("redis_read_only", _LANE, _read_only, "every write gets -READONLY", (1, 4)),
    fault("redis_full", _LANE, _full, "every write gets -OOM", (1, 4)),
    fault("redis_stopped", _LANE, _stopped, "it accepts connections and answers nothing", (1, 5)),
    fault("redis_away", _LANE, _away(keep_data=True), "not there for ten seconds", (10, 10)),
    fault(
        "redis_away_emptied",
        _LANE,
        _away(keep_data=False),
        "not there for a while, back without data",
        (2, 6),
    ),
    fault("redis_cut", _LANE, _way("cut"), "all connections are cut"),
    fault(
        "redis_reply_cut",
        _LANE,
        _way("cut_replies", 10),
        "connections are cut between a script and its reply",
        (0.5, 2),
    ),
    fault(
        "redis_request_cut",
        _LANE,
        _way("cut_requests", 10),
        "connections are cut before the command arrives",
        (0.5, 2),
    ),
    fault("redis_slow", _LANE, _way("delay", 0.2), "every reply takes 200 ms", (2, 5)),
]
