"""What is wanted in a soak: tasks of many kinds, revoked and launched again at any moment."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kbroker.event import Cause

# Submissions end here: the last tasks have time to meet faults, too.
_LAST_SUBMIT = 0.85
_REPLACED = 0.05
_REVOKED = 0.05
# How long after its submission a task is revoked or launched anew, at most.
_CHANGE_WITHIN = 4.0
# The kind of task that kills every launcher that tries to create its pod.
POISON = "poison"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task, and what must come of it when nothing happens to its pod.

    Attributes:
        name: of the kind.
        weight: how many of a hundred tasks are of it, about.
        does: what its container does; see `ledger.SCRIPT`.
        config: its executor config.
        causes: one of these causes must end it; none for success.
        starts: whether its container starts.
        expired: whether it is too old from the beginning.
    """

    name: str
    weight: int
    does: str = "work"
    config: Mapping[str, Any] = field(default_factory=dict)
    causes: frozenset[Cause] = frozenset()
    starts: bool = True
    expired: bool = False


def _spec(**spec: Any) -> dict[str, Any]:
    return {"pod_override": {"spec": spec}}


def _init(script: str) -> dict[str, Any]:
    return _spec(
        initContainers=[{"name": "prepare", "image": "busybox", "command": script.split()}]
    )


def _missing_secret() -> dict[str, Any]:
    source = {"secretKeyRef": {"name": "kbroker-soak-missing", "key": "none"}}
    env = [{"name": "MISSING", "valueFrom": source}]
    return _spec(containers=[{"name": "base", "env": env}])


KINDS = {
    kind.name: kind
    for kind in (
        Kind("work", 70),
        Kind("failing", 6, does="fail", causes=frozenset({Cause.ERROR})),
        Kind("restarted", 4, does="restart", config=_spec(restartPolicy="OnFailure")),
        Kind(
            "sidecar",
            3,
            config=_spec(
                containers=[{"name": "aside", "image": "busybox", "command": ["sleep", "600"]}]
            ),
        ),
        Kind("prepared", 3, config=_init("true")),
        Kind(
            "hungry",
            2,
            does="eat",
            config={"limit_memory": "24Mi"},
            causes=frozenset({Cause.OOM_KILLED}),
        ),
        Kind(
            "endless",
            2,
            does="hang",
            config=_spec(activeDeadlineSeconds=2),
            causes=frozenset({Cause.DEADLINE_EXCEEDED}),
        ),
        Kind(
            "imageless",
            1,
            config={"image": "registry.invalid/none:1"},
            causes=frozenset({Cause.IMAGE_PULL}),
            starts=False,
        ),
        Kind(
            "unprepared",
            2,
            config=_init("false"),
            causes=frozenset({Cause.INIT_FAILED}),
            starts=False,
        ),
        Kind(
            "unconfigured",
            1,
            config=_missing_secret(),
            causes=frozenset({Cause.CONFIG_ERROR}),
            starts=False,
        ),
        Kind(POISON, 1, causes=frozenset({Cause.DEAD}), starts=False),
        Kind("late", 2, causes=frozenset({Cause.EXPIRED}), starts=False, expired=True),
    )
}


class Op(StrEnum):
    """What a scheduler is asked for."""

    RUN = "run"
    REVOKE = "revoke"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Request:
    """Something that a scheduler is asked for.

    Attributes:
        at: seconds from the beginning.
        op: what.
        scheduler: whom.
        task: task id.
        launch: launch id; "" but for a run.
        kind: of the task; "" but for a run.
        takes: seconds that the task works.
    """

    at: float
    op: Op
    scheduler: str = ""
    task: str = ""
    launch: str = ""
    kind: str = ""
    takes: float = 0.0


def draw(
    seed: int,
    tasks: int,
    duration: float,
    schedulers: Sequence[str],
    calm: Sequence[tuple[float, float]] = (),
    kinds: Sequence[str] = tuple(KINDS),
) -> list[Request]:
    """Everything that is wanted in a soak, by time.

    Args:
        seed: of every choice.
        tasks: how many, spread over the duration.
        duration: seconds.
        schedulers: names of those that share the tasks.
        calm: when nothing is to be submitted: (from, to) in seconds.
        kinds: names of the kinds of tasks.
    """
    rng = random.Random(f"{seed}/workload")
    weights = [KINDS[name].weight for name in kinds]
    requests: list[Request] = []
    for number in range(tasks):
        at = _outside(calm, rng.uniform(0, duration * _LAST_SUBMIT))
        kind = rng.choices(kinds, weights)[0]
        task, scheduler = f"{kind}-{number}", schedulers[number % len(schedulers)]
        run = Request(at, Op.RUN, scheduler, task, f"{task}/1", kind, _work(rng))
        requests.append(run)
        change, when = rng.random(), _outside(calm, at + rng.uniform(0, _CHANGE_WITHIN))
        if change < _REVOKED:
            requests.append(Request(when, Op.REVOKE, scheduler, task))
        elif change < _REVOKED + _REPLACED:
            requests.append(Request(when, Op.RUN, scheduler, task, f"{task}/2", kind, _work(rng)))
    return sorted(requests, key=lambda request: request.at)


def counts(requests: Iterable[Request]) -> dict[str, int]:
    """How many launches of each kind were asked for, and how often tasks were changed."""
    found: Counter[str] = Counter()
    known: set[str] = set()
    for request in requests:
        if request.op is Op.RUN:
            found[request.kind] += 1
            found["replaced"] += request.task in known
            known.add(request.task)
        elif request.op is Op.REVOKE:
            found["revoked"] += 1
    return dict(found)


def _work(rng: random.Random) -> float:
    """Most tasks are short, a few run through many faults."""
    return round(min(rng.expovariate(1 / 0.8), 8.0), 2)


def _outside(calm: Sequence[tuple[float, float]], at: float) -> float:
    for begin, end in sorted(calm):
        if begin <= at < end:
            at = end
    return at
