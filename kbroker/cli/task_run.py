"""One run of the tasks of a file: what a scheduler is to an executor."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from kbroker.cli.journal import History, digest
from kbroker.cli.resumption import Todo, plan
from kbroker.cli.task_file import TaskSpec
from kbroker.cli.task_progress import State, TaskProgress, try_launch
from kbroker.cli.text import one_line
from kbroker.event import Cause, Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.task import Launch, TaskKey

# How often the executor is asked whether it still knows every task.
_RECOUNT_EVERY = 3.0
_NEWS = 20
# So many of the oldest waiting tasks are asked why, at most.
_ASKED = 1000
_LONGEST_DELAY = 300.0


class Memory(Protocol):
    """What outlives the process; see `Journal`."""

    history: dict[str, History]

    def tried(self, task: str, number: int, spec: str) -> None:
        """A try is about to be wanted."""

    def ended(
        self, task: str, number: int, outcome: Outcome, *, state: str | None, retry_at: float | None
    ) -> None:
        """A try has ended."""

    def dropped(self, task: str, number: int) -> None:
        """The run gives a try up."""

    def commit(self) -> None:
        """Have everything on disk."""


class Logs(Protocol):
    """Keeps the logs of tries before their pods go; see `TaskLogs`."""

    def fetch(self, key: TaskKey, outcome: Outcome, *, last: bool) -> None:
        """Begin to fetch a try's log."""

    def fetched(self) -> list[TaskKey]:
        """The tries whose log was fetched, or could not be, since the last call."""

    def news(self) -> list[str]:
        """What went wrong since the last call."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run does about failures.

    Attributes:
        retries: tries after the first failed one, where a task does not say.
        retry_delay: seconds before the second try, doubled for each further one; a random
            half of it is left out.
        fail_fast: whether the first task that ends otherwise than expected ends the run.
        again: whether a resumed run tries again what did not succeed.
    """

    retries: int = 0
    retry_delay: float = 0.0
    fail_fast: bool = False
    again: bool = False

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures."""
        longest = self.retry_delay * 2.0 ** min(failures - 1, 30)
        return min(longest, _LONGEST_DELAY) * (0.5 + 0.5 * rng.random())


@dataclass(slots=True)
class TaskRun:
    """Drives an executor until every task is final.

    Args:
        tasks: what to run.
        executor: started already.
        name: the run's name, the dag id of its tasks.
        run_id: makes the launch ids; the same one names the same launches.
        memory: what is done already, and is written to before anything is done.
        policy: what to do about failures.
        logs: where logs are kept; None for nowhere.
        cluster_gone: whether the pods of an earlier process have ended with its cluster.
        clock: monotonic seconds.
        wall: seconds since the epoch.
        rng: for the jitter of delays.
    """

    tasks: list[TaskSpec]
    executor: KubernetesExecutor
    name: str
    run_id: str
    memory: Memory
    policy: Policy = field(default_factory=Policy)
    logs: Logs | None = None
    cluster_gone: bool = False
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)
    progress: dict[str, TaskProgress] = field(default_factory=dict)
    finished: int = 0
    interrupts: int = 0
    halted: bool = False
    _active: dict[str, TaskProgress] = field(default_factory=dict)
    _counts: Counter[State] = field(default_factory=Counter)
    _due: list[tuple[float, str]] = field(default_factory=list)
    _delayed: set[str] = field(default_factory=set)
    _fetching: set[TaskKey] = field(default_factory=set)
    _recount_at: float = 0.0
    _news: list[str] = field(default_factory=list)
    _told: int = 0

    # Wanting.

    def submit(self) -> None:
        """Want every task that is not done; take over what may be under way."""
        adopted = []
        for spec in self.tasks:
            past = self.memory.history.get(spec.id)
            step = plan(past, cluster_gone=self.cluster_gone, again=self.policy.again)
            task = self._add(spec, step.number, past)
            if step.todo is Todo.DONE and past is not None and past.state is not None:
                self._enter(task, State(past.state))
            elif step.todo is Todo.ADOPT:
                adopted.append(task)
            elif step.todo is Todo.WAIT and past is not None and past.retry_at is not None:
                self._delay(task, past.retry_at)
            else:
                self._execute(task)
        self.memory.commit()
        self._adopt(adopted)
        self._recount_at = self.clock() + _RECOUNT_EVERY

    def _add(self, spec: TaskSpec, number: int, past: History | None) -> TaskProgress:
        task = TaskProgress(spec, self._launch(spec, number), since=self.clock())
        if past is not None:
            task.outcomes += past.outcomes
        self.progress[spec.id] = self._active[spec.id] = task
        self._counts[task.state] += 1
        return task

    def _launch(self, spec: TaskSpec, number: int) -> Launch:
        deployment = self.executor.config.core.deployment
        return try_launch(deployment, self.name, self.run_id, spec.id, number)

    def _execute(self, task: TaskProgress) -> None:
        self.memory.tried(task.spec.id, task.tries, digest(task.spec))
        self.executor.execute_async(
            task.launch.key,
            task.spec.command,
            executor_config=task.spec.config,
            launch_id=task.launch.launch_id,
        )

    def _adopt(self, tasks: Iterable[TaskProgress]) -> None:
        self.executor.adopt(
            LaunchRequest(
                task.launch.key,
                task.spec.command,
                task.launch.launch_id,
                executor_config=task.spec.config,
            )
            for task in tasks
        )

    # The loop.

    def beat(self) -> None:
        """One turn of the scheduler's loop.

        What the journal is told here is on disk before the next turn publishes it, and
        before the next turn lets pods go.
        """
        self.executor.heartbeat()
        events = self.executor.get_event_buffer(keep_pods=self.logs is not None)
        for key, (state, info) in events.items():
            task = self.progress[key.task_id]
            if key == task.launch.key and not task.state.final:
                self._take(task, state, info)
            elif state in ("success", "failed"):
                self.executor.let_go(key)
        if self.interrupts:
            early = [self.progress[k.task_id] for k in self.executor.not_launched()]
            self._cancel([*early, *(self.progress[task] for task in self._delayed)])
        self._try_again()
        if self.clock() >= self._recount_at:
            self._recount_at = self.clock() + _RECOUNT_EVERY
            self._recount()
        self.memory.commit()
        self._take_logs()

    def _take(self, task: TaskProgress, state: str, info: Any) -> None:
        if state not in ("success", "failed"):
            self._enter(task, State.PENDING if state == "queued" else State.RUNNING)
            return
        task.outcomes.append(info)
        final = self._final(task, state, info)
        if self.logs is not None:
            self._fetching.add(task.launch.key)
            self.logs.fetch(task.launch.key, info, last=final is not None)
        if final is None:
            self._retry(task, info)
            return
        self.memory.ended(task.spec.id, task.tries, info, state=final.value, retry_at=None)
        self._enter(task, final)
        if not task.as_expected:
            self._tell(f"{task.spec.id}: {final}: {info}")
            self.halted = self.halted or self.policy.fail_fast

    def _final(self, task: TaskProgress, state: str, outcome: Outcome) -> State | None:
        """The task's final state; None when it is tried again."""
        if state == "success":
            return State.SUCCESS
        if outcome.cause is Cause.CANCELLED:
            return State.CANCELLED
        limit = self.policy.retries if task.spec.retries is None else task.spec.retries
        again = len(task.outcomes) <= limit and not self.interrupts and not self.halted
        return None if again else State.FAILED

    def _retry(self, task: TaskProgress, outcome: Outcome) -> None:
        delay = self.policy.delay(len(task.outcomes), self.rng)
        due = self.wall() + delay
        self.memory.ended(task.spec.id, task.tries, outcome, state=None, retry_at=due)
        when = f" in {delay:.0f} s" if delay >= 1 else ""
        self._tell(f"{task.spec.id}: try {task.tries} failed, trying again{when}: {outcome}")
        task.launch = self._launch(task.spec, task.tries + 1)
        self._delay(task, due)

    def _delay(self, task: TaskProgress, due: float) -> None:
        self._enter(task, State.QUEUED)
        self._delayed.add(task.spec.id)
        heapq.heappush(self._due, (due, task.spec.id))

    def _try_again(self) -> None:
        """Want the tries that are due."""
        now = self.wall()
        while self._due and self._due[0][0] <= now:
            _, name = heapq.heappop(self._due)
            if name in self._delayed:
                self._delayed.discard(name)
                self._execute(self.progress[name])

    def _take_logs(self) -> None:
        if self.logs is None:
            return
        for key in self.logs.fetched():
            self._fetching.discard(key)
            self.executor.let_go(key)
        for line in self.logs.news():
            self._tell(line)

    def _enter(self, task: TaskProgress, state: State) -> None:
        self._counts[task.state] -= 1
        self._counts[state] += 1
        if state.final and not task.state.final:
            self.finished += 1
            self._active.pop(task.spec.id, None)
        task.state = state
        task.since = self.clock()

    def _recount(self) -> None:
        """Find the tasks that the executor dropped: they are not this run's to run."""
        waiting = self.executor.queued_tasks
        for task in list(self._active.values()):
            key = task.launch.key
            known = key in waiting or key in self.executor.running or task.spec.id in self._delayed
            if not known and key not in self.executor.event_buffer:
                self._enter(task, State.LOST)
                self._tell(
                    f"{task.spec.id}: another run has this launch, or it was withdrawn: "
                    "give this run another --run-id"
                )

    def _tell(self, line: str) -> None:
        self._told += 1
        if self._told <= _NEWS:
            self._news.append(one_line(line))
        elif self._told == _NEWS + 1:
            self._news.append("further failures are in the table at the end")

    def news(self) -> list[str]:
        """What happened since the last call that is worth a line."""
        news, self._news = self._news, []
        return news

    # Ending early.

    def interrupt(self) -> None:
        """Ctrl-C: the first time nothing more is launched, the second time all is cancelled."""
        self.interrupts += 1

    def cancel_all(self) -> None:
        """Revoke everything that is not final; its pods are removed."""
        self._cancel(list(self._active.values()))

    def _cancel(self, tasks: list[TaskProgress]) -> None:
        unfinished = [task for task in tasks if not task.state.final]
        if not unfinished:
            return
        for task in unfinished:
            self.memory.dropped(task.spec.id, task.tries)
        self.memory.commit()  # else a resumed run would take them for withdrawn by others
        wanted = [task.launch.key for task in unfinished if task.spec.id not in self._delayed]
        self.executor.revoke_all(wanted, "cancelled by the user")
        for task in unfinished:
            self._delayed.discard(task.spec.id)
            self._enter(task, State.CANCELLED)

    # What is to be seen.

    @property
    def over(self) -> bool:
        """Whether every task is final, and every log is kept."""
        return self.finished == len(self.progress) and not self._fetching

    @property
    def as_expected(self) -> bool:
        """Whether every task ended as its line says."""
        return all(task.as_expected for task in self.progress.values())

    @property
    def places(self) -> set[tuple[str, str]]:
        """Cluster and namespace of every task."""
        settings = self.executor.config.kubernetes
        return {
            (
                spec.config.get("cluster", settings.cluster),
                spec.config.get("namespace", settings.namespace),
            )
            for spec in self.tasks
        }

    def counts(self) -> Counter[State]:
        """How many tasks are in each state."""
        return +self._counts

    def slowest(self, count: int) -> list[TaskProgress]:
        """The tasks that have been running for longest."""
        running = [t for t in self._active.values() if t.state is State.RUNNING]
        return heapq.nsmallest(count, running, key=lambda task: task.since)

    def waits(self, count: int) -> list[tuple[str, str]]:
        """Some tasks that wait, and why, those with a reason of their own first."""
        found = []
        for task in islice(self._active.values(), _ASKED):
            if task.state in (State.QUEUED, State.PENDING):
                why = self.executor.waiting(task.launch.key)
                if why and not why.startswith(("waits ", "all ")):
                    found.append((task.spec.id, one_line(why)))
                    if len(found) == count:
                        break
        return found
