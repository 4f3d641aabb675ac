"""A long queue: what each waiting task costs, and whether launching suffers from its length."""

from __future__ import annotations

import sys
import time

from kbroker.bench import tasks
from kbroker.bench.bench import Bench, Measured
from kbroker.bench.cpu import cpu_seconds, resident_bytes
from kbroker.bench.limit import Limit
from kbroker.bench.samples import per_second, rate
from kbroker.bench.stack import Shape, Stack

FIGURES = ("backlog_decline", "backlog_executor_bytes")
_WITHIN = 300.0
# Tasks missing from the queue would be published again: here they are taken out of it on
# purpose. And launchers that are paused, on purpose too, would be taken for dead.
_PATIENT = {"core.reconcile_interval": 3600.0, "broker.redelivery_after": 600.0}
# Of a part, what its beginning distorts.
_EDGE = 0.1
_FEW = 100


def measure(bench: Bench) -> Measured:
    """Queue everything, launch the first part, and then the last.

    What lies between is taken out of the queue, but not out of the executor's hands: launching
    it all would take minutes and show the same. Each part is held against the limit's rate just
    before and just after it, because a machine's speed varies by more than the bar.
    """
    sizes, folder = bench.sizes, bench.folder / "backlog"
    part = sizes.backlog_launched
    measured = Measured()
    with (
        bench.sites.site("backlog") as site,
        Stack(site, folder, Shape(settings=_PATIENT), bench.pids) as stack,
        Limit(site, folder) as limit,
    ):
        stack.launchers.pause()
        _queue(stack, measured, sizes.backlog)
        possible = [_limit(limit, "before", part)]
        first = _launched(stack, measured, "start", part)
        stack.launchers.pause()
        possible.append(_limit(limit, "between", part))
        queued = stack.queued()
        stack.shorten(part)
        measured.notes["backlog_taken_out"] = queued - part
        last = _launched(stack, measured, "end", part)
        stack.until("the queue is empty", lambda: not stack.queued(), _WITHIN)
        stack.noted()
        possible.append(_limit(limit, "after", part))
        measured.add("backlog_decline", 1 - _share(last, possible[1:]) / _share(first, possible))
        if not site.disposable:
            limit.sweep()
            stack.sweep()
    return measured


def _queue(stack: Stack, measured: Measured, count: int) -> None:
    """Queue so many tasks; what each costs, and how that grows with what is queued already."""
    executor = stack.scheduler.pid
    stack.submit("few", _FEW)  # what is needed for any task at all is not counted
    stack.until("they are queued", lambda: stack.queued() == _FEW, _WITHIN)
    memory, redis, cpu = resident_bytes(executor), stack.used_memory(), cpu_seconds(executor)
    began, queued = time.monotonic(), _FEW
    for size in (count // 100, count // 10, count):
        if size > queued:
            _queue_up_to(stack, measured, queued, size)
            queued = size
    new, spent = count - _FEW, time.monotonic() - began
    stack.noted()
    command = _command_bytes()
    held = (resident_bytes(executor) - memory) / new
    measured.add("backlog_executor_bytes", held - command)
    measured.notes |= {
        "backlog_enqueued_per_s": new / spent,
        "backlog_redis_bytes": (stack.used_memory() - redis) / new,
        "backlog_enqueue_cpu_ms": 1000 * (cpu_seconds(executor) - cpu) / new,
        "backlog_command_bytes": command,
    }


def _queue_up_to(stack: Stack, measured: Measured, queued: int, size: int) -> None:
    """Queue more, from so many to so many."""
    executor = stack.scheduler.pid
    cpu = cpu_seconds(executor)
    stack.submit("backlog", size - queued, first=queued)
    stack.until("they are queued", lambda: stack.queued() == size, _WITHIN)
    cost = 1000 * (cpu_seconds(executor) - cpu) / (size - queued)
    measured.series.setdefault("enqueue CPU", []).append((size, cost))


def _command_bytes() -> int:
    """What one task's command takes in memory: its own strings, and the tuple."""
    command = tuple(tasks.request("backlog", 0).command)
    own = command[-1]  # the other words are the same objects for all
    return sys.getsizeof(command) + sys.getsizeof(own)


def _share(reached: float, possible: list[float]) -> float:
    """A rate over the limit's mean just before and just after."""
    return reached / (sum(possible[:2]) / 2)


def _launched(stack: Stack, measured: Measured, when: str, count: int) -> float:
    """The rate at which the next so many are launched."""
    before = stack.pods()
    seen = [(time.monotonic(), 0)]  # so that there is a beginning however fast they come

    def there() -> bool:
        seen.append((time.monotonic(), stack.pods() - before))
        return seen[-1][1] >= count

    stack.launchers.go_on()
    stack.until(f"{count} more pods exist", there, _WITHIN)
    reached = rate(seen, int(_EDGE * count), count)
    measured.notes[f"backlog_per_s_at_{when}"] = reached
    measured.series[f"backlog, {when}"] = per_second(seen, 0.5)
    return reached


def _limit(limit: Limit, when: str, count: int) -> float:
    limit.prepare(f"limit-{when}", count)
    done = limit.carry_out("create", count)
    return rate(done, int(_EDGE * count), count)
