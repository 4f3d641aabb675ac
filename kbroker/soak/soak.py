"""A soak from beginning to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kbroker.soak import ledger, plan, workload
from kbroker.soak.audit import Evidence, Verdict, judge
from kbroker.soak.faults import FAULTS
from kbroker.soak.injector import Injector
from kbroker.soak.leftovers import Leftovers
from kbroker.soak.plan import Step
from kbroker.soak.stack import SCHEDULERS, SoakStack
from kbroker.soak.workload import Op, Request

_TURN = 0.02
_KEEP_UP_EVERY = 0.2
_SAY_EVERY = 10.0
_LEAVE_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a soak is to be.

    Attributes:
        tasks: how many, spread over the duration.
        seed: of the plan and of the tasks.
        faults: names of those that may happen.
        duration: seconds in which tasks are submitted and faults happen.
        kinds: of the tasks.
        settle: seconds that what is left may take afterwards.
        policy: whether the local cluster refuses late creates.
        kubeconfig: of another cluster than a local one; None for that.
        settings: further settings, by section.key.
    """

    tasks: int
    seed: int
    faults: Sequence[str]
    duration: float
    kinds: Sequence[str] = tuple(workload.KINDS)
    settle: float = 120.0
    policy: bool = True
    kubeconfig: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        verdict: of the audit.
        faults: name → how often it happened.
        tasks: what was wanted: kind of task, "revoked" or "replaced" → how often.
        missed: faults that met nothing.
        impossible: faults that could not begin because of another one, or could not be healed.
        seed: of the plan.
        seconds: it took.
        memory: "start", "middle" and "end" → process → resident KB.
        slowest_heartbeat: of the schedulers, in seconds.
        rejected: writes of watchers without the lease that were refused.
        folder: logs and state.
    """

    verdict: Verdict
    faults: dict[str, int]
    tasks: dict[str, int]
    missed: int
    impossible: int
    seed: int
    seconds: float
    memory: dict[str, dict[str, int]]
    slowest_heartbeat: float
    rejected: int
    folder: Path

    @property
    def last_line(self) -> str:
        """The result in one line."""
        return together([self])


def together(reports: Sequence[Report]) -> str:
    """The results of some soaks with one seed in one line."""
    verdicts = [report.verdict for report in reports]
    figures = {
        "tasks": sum(verdict.tasks for verdict in verdicts),
        "executed": sum(verdict.executed for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "duplicated": sum(len(verdict.duplicated) for verdict in verdicts),
        "stuck": sum(len(verdict.stuck) for verdict in verdicts),
        "wrong_state": sum(len(verdict.wrong_state) for verdict in verdicts),
        "faults": sum(sum(report.faults.values()) for report in reports),
        "seed": reports[0].seed,
    }
    return "soak: " + " ".join(f"{name}={value}" for name, value in figures.items())


class Soak:
    """One soak.

    Args:
        wanted: what it is to be.
        folder: logs and state.
        say: is told what happens.
    """

    def __init__(self, wanted: Wanted, folder: Path, say: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._folder = folder
        self._tell = say
        self._steps: list[Step] = plan.draw(
            wanted.seed, [FAULTS[name].shape for name in wanted.faults], wanted.duration
        )
        alone = [step for step in self._steps if FAULTS[step.fault].shape.alone]
        self._requests = workload.draw(
            wanted.seed,
            wanted.tasks,
            wanted.duration,
            SCHEDULERS,
            plan.calm_times(alone),
            wanted.kinds,
        )
        self._asked: list[Request] = []
        self._memory: dict[str, dict[str, int]] = {}
        self._slowest = 0.0
        self._began = 0.0

    def run(self) -> Report:
        """Run it, and judge.

        Raises:
            KbrokerError: the stack does not start.
        """
        wanted = self._wanted
        with SoakStack(
            self._folder, wanted.settings, policy=wanted.policy, kubeconfig=wanted.kubeconfig
        ) as stack:
            self._began = time.monotonic()
            self._say(f"{len(self._requests)} requests, {len(self._steps)} faults")
            self._memory["start"] = stack.memory()
            injector = Injector(stack, self._steps, self._say)
            self._work(stack, injector)
            injector.heal_all()
            left = self._settle(stack)
            self._memory["end"] = stack.memory()
            left += self._leave(stack)
            stack.written_down()
            return self._report(stack, left)

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _say(self, text: str) -> None:
        self._tell(f"{self._now:6.1f}s {text}")

    def _work(self, stack: SoakStack, injector: Injector) -> None:
        left = list(reversed(self._requests))
        keep_up_at = say_at = 0.0
        while self._now < self._wanted.duration:
            while left and left[-1].at <= self._now:
                self._ask(stack, left.pop())
            injector.turn(self._now)
            if self._now >= keep_up_at:
                stack.keep_up()
                keep_up_at = self._now + _KEEP_UP_EVERY
            if self._now >= say_at:
                self._progress(stack)
                say_at = self._now + _SAY_EVERY
            if "middle" not in self._memory and self._now > self._wanted.duration / 2:
                self._memory["middle"] = stack.memory()
            time.sleep(_TURN)

    def _ask(self, stack: SoakStack, request: Request) -> None:
        self._asked.append(request)
        stack.databases[request.scheduler].ask(request)

    def _progress(self, stack: SoakStack) -> None:
        asked = sum(request.op is Op.RUN for request in self._asked)
        ended = sum(len(database.endings()) for database in stack.databases.values())
        self._say(f"{asked} launches wanted, {ended} final states told")

    def _settle(self, stack: SoakStack) -> list[str]:
        """Wait until everything is over; what is not."""
        deadline = time.monotonic() + self._wanted.settle
        say_at = 0.0
        while True:
            stack.keep_up()
            busy = self._busy(stack)
            if not busy or time.monotonic() > deadline:
                return busy
            if self._now >= say_at:
                self._progress(stack)
                say_at = self._now + _SAY_EVERY
            time.sleep(0.2)

    def _busy(self, stack: SoakStack) -> list[str]:
        busy = []
        for name, database in stack.databases.items():
            status = database.status()
            self._slowest = max(self._slowest, status.get("slowest_heartbeat", 0.0))
            if not stack.schedulers[name].alive or status.get("seen") != database.size:
                busy.append(f"scheduler {name} has not read all that it is asked for")
            busy += [f"running in scheduler {name}: {task}" for task in status["running"]]
            busy += [f"not adopted by scheduler {name}: {task}" for task in status["adopting"]]
            if status["queued"]:
                busy.append(f"scheduler {name} has {status['queued']} tasks to publish")
        return busy

    def _leave(self, stack: SoakStack) -> list[str]:
        """Let the schedulers go, and see what is left of it all."""
        for name, database in stack.databases.items():
            database.ask(Request(self._now, Op.LEAVE, name))
            stack.schedulers[name].wanted = False
        left = [
            f"scheduler {name} does not end"
            for name, scheduler in stack.schedulers.items()
            if not scheduler.wait(_LEAVE_WITHIN)
        ]
        return left + Leftovers(stack).wait()

    def _report(self, stack: SoakStack, left: list[str]) -> Report:
        evidence = Evidence(
            requests=self._asked,
            ledger=ledger.read(stack.ledger),
            endings={name: database.endings() for name, database in stack.databases.items()},
            hits=stack.hits,
            crashes={
                name: [at - self._began for at in process.started_at[1:]]
                for name, process in stack.schedulers.items()
            },
            left=left,
        )
        faults = {name: stack.counts[name] for name in self._wanted.faults if stack.counts[name]}
        return Report(
            judge(evidence),
            faults,
            workload.counts(self._asked),
            stack.missed,
            stack.impossible,
            self._wanted.seed,
            self._now,
            self._memory,
            self._slowest,
            stack.rejected(),
            stack.folder,
        )
