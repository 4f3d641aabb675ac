"""Redis dies or forgets everything while launches stand at every point of their way."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator

import pytest

from kbroker.event import Outcome, PodState
from kbroker.result_stream import read_picture
from kbroker.task import Launch, TaskKey
from tests.integration.scene import poll
from tests.integration.stack import Process, Run, Stack

PLACE = ("default", "default")
PODS = "/api/v1/namespaces/default/pods"
HELD_MS = 800
NEVER_BOUND = {"pod_override": {"spec": {"schedulerName": "nobody"}}}
UNREAD = "low"  # the queue that no launcher reads before Redis is lost

LOSSES: dict[str, Callable[[Stack], object]] = {
    "restarted with data": lambda stack: stack.redis_server.restart(keep_data=True),
    "restarted empty": lambda stack: stack.redis_server.restart(keep_data=False),
    "FLUSHALL": lambda stack: stack.redis.flushall(),
}
POINTS = (
    "published",  # on the queue
    "granted",  # its create is under way
    "pending",  # its pod has no node
    "running",
    "unread",  # it has ended, the executor has not read that
    "told",  # its end is in the event buffer
    "taken",  # its end was handed out, its record is not closed
)


class Lost(Run):
    """A task at every point; its DAG is called after the point."""

    def __init__(self, stack: Stack, number: int) -> None:
        super().__init__(stack, stack.executor(f"exec-{number}"), f"run{number}")

    def key(self, task: str) -> TaskKey:
        """The DAG is the part before the dash."""
        return TaskKey(task.partition("-")[0], task, self.name)

    def at(self, point: str) -> str:
        """The task at this point."""
        return f"{point}-{self.name}"

    def begin(self, point: str, seconds: float = 0.1, **more: object) -> str:
        """Want its task."""
        task = self.at(point)
        self.want(task, self.stack.command(task, seconds), **more)
        return task

    def hear(self) -> None:
        """Take every final state that was told."""
        for key, (state, info) in self.executor.get_event_buffer().items():
            self._note(key, state, info)

    def _note(self, key: TaskKey, state: str, info: object) -> None:
        if isinstance(info, Outcome):
            self.finals[key.task_id].append((state, info))

    def states_now(self) -> dict[str, PodState]:
        """Task → what the picture says of its pod."""
        picture = read_picture(self.stack.redis, self.stack.keys.pods(*PLACE))
        return {event.launch.key.task_id: event.state for event in picture.values()}

    def lose(self, loss: Callable[[Stack], object]) -> Process:
        """Bring every task to its point, and then it happens."""
        self._hold_creates()
        self.begin("published", queue=UNREAD)
        pending = self.begin("pending", executor_config=NEVER_BOUND)
        running = self.begin("running", 3.0)
        ended = [self.begin(point) for point in ("told", "taken")]
        self.beat()
        wanted = {pending: PodState.PENDING, running: PodState.RUNNING}
        wanted.update(dict.fromkeys(ended, PodState.SUCCEEDED))
        poll("at their points", lambda: wanted.items() <= self.states_now().items())
        self._tell("told", "taken")
        unread, granted = self.begin("unread"), self.begin("granted")
        self.executor._publish()
        poll("ended", lambda: self.states_now().get(unread) is PodState.SUCCEEDED)
        record = self.stack.keys.task(self._launch(granted).digest)
        poll("granted", lambda: self.stack.redis.hexists(record, "granted_at"))
        loss(self.stack)
        return self.stack.launcher()  # it reads every queue

    def _tell(self, told: str, taken: str) -> None:
        """The executor reads all that was said; the end of one is taken."""
        self.executor._intake.turn()
        assert {self.key(self.at(point)) for point in (told, taken)} <= set(
            self.executor.event_buffer
        )
        for key, (state, info) in self.executor.get_event_buffer([taken]).items():
            self._note(key, state, info)
        assert self.finals[self.at(taken)]

    def _launch(self, task: str) -> Launch:
        return Launch("kbroker", self.key(task), f"{self.name}-{task}")

    def _hold_creates(self) -> None:
        match = {"verb": "create", "resource": "pods", "name_prefix": "granted"}
        rule = {"match": match, "action": {"hold_ms": HELD_MS}, "times": 1}
        self.stack.cluster.admin.post("/_local/faults", rule)

    def bind(self) -> None:
        """A scheduler finds a node for the pending pod."""
        for event in read_picture(self.stack.redis, self.stack.keys.pods(*PLACE)).values():
            if event.launch.key == self.key(self.at("pending")):
                target = {"metadata": {"name": event.pod}, "target": {"name": "local"}}
                self.stack.cluster.admin.post(f"{PODS}/{event.pod}/binding", target)

    def recover(self) -> None:
        """Until every task is final and its pod gone."""
        pending = self.at("pending")
        self.until("it is seen again", lambda: self.states_now().get(pending) is PodState.PENDING)
        self.bind()
        self.finish()
        self.until("every pod is gone", lambda: not self.states_now())
        self.executor.end()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lost]]:
    """One loss after another."""
    settings = {
        "core__executor_lease": 20.0,  # nobody renews it while the tasks come to their points
        "kubernetes__create_window": 1.5,
        "kubernetes__retry_budget": 1.0,
    }
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        stack.watcher()
        stack.launcher(broker__priorities=["high", "normal"])
        stack.until_led()
        lived = {}
        for number, (name, loss) in enumerate(LOSSES.items()):
            run = lived[name] = Lost(stack, number)
            one_more = run.lose(loss)
            run.recover()
            one_more.kill()
        yield lived
        stack.kill()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("point", POINTS)
def test_it_runs_once_and_has_one_end(lived: dict[str, Lost], loss: str, point: str) -> None:
    run = lived[loss]
    task = run.at(point)
    assert (run.stack.starts()[task], run.stack.ends()[task]) == (1, 1)
    assert [state for state, _ in run.finals[task]] == ["success"]


def test_nothing_else_ran(lived: dict[str, Lost]) -> None:
    stack = next(iter(lived.values())).stack
    tasks = collections.Counter(task for run in lived.values() for task in run.tasks)
    assert stack.starts() == tasks
    stats = stack.cluster.admin.get("/_local/stats")
    assert stats["create pods 201"] == stats["delete pods 200"] == len(tasks)
