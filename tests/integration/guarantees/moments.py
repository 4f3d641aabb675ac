"""A launch at every moment of its life, and what is done to it there."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence

from kbroker import naming
from kbroker.event import Outcome, PodEvent, PodState
from kbroker.result_stream import read_picture
from kbroker.task import Launch
from tests.integration.scene import poll
from tests.integration.stack import Run, Stack

PLACE = ("default", "default")
PODS = "/api/v1/namespaces/default/pods"
CREATE = {"verb": "create", "resource": "pods"}
FULL = "exceeded quota: full, requested: pods=1, used: pods=9, limited: pods=9"
HELD_MS = 1200
UNSCHEDULED = {"pod_override": {"spec": {"schedulerName": "nobody"}}}

# In the order in which they are brought about: the first two before any launcher runs.
MOMENTS = (
    "buffered",  # in the executor's memory
    "queued",  # on the broker
    "parked",  # it waits for room
    "pending",  # its pod has no node
    "running",
    "creating",  # its create is held at the API server
    "unread",  # it has finished, the executor has not heard of it
    "told",  # its end is in the event buffer
    "taken",  # its end was handed out
)
BEFORE_A_POD = MOMENTS[:3]
OVER = MOMENTS[-2:]


class Lives(Run):
    """Tasks `<moment>-<act>`, each with a launch "first" and, as its act has it, a "second"."""

    def __init__(self, stack: Stack, *acts: Callable[[Lives, str], object]) -> None:
        super().__init__(stack, stack.executor())
        self._acts = {act.__name__: act for act in acts}
        self.answers: dict[str, object] = {}
        self.heard: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
        self.heard_before: dict[str, int] = {}

    def of(self, moment: str) -> list[str]:
        """The tasks of this moment."""
        return [f"{moment}-{act}" for act in self._acts]

    def launch(self, task: str, launch_id: str, seconds: float = 0.1) -> None:
        """Want a launch of this task; the ledger knows it as `<task>/<launch id>`."""
        unscheduled = (task.partition("-")[0], launch_id) == ("pending", "first")
        self.executor.execute_async(
            self.key(task),
            self.stack.command(f"{task}/{launch_id}", seconds),
            executor_config=UNSCHEDULED if unscheduled else None,
            launch_id=launch_id,
        )

    def begin(self, moment: str, seconds: float = 0.1) -> list[str]:
        """Want the first launch of each task of this moment."""
        for task in self.of(moment):
            self.launch(task, "first", seconds)
        return self.of(moment)

    def act(self, moment: str) -> None:
        """Do to the tasks of this moment what is to be done to them."""
        for task in self.of(moment):
            self.heard_before[task] = len(self.heard[task])
            self.answers[task] = self._acts[task.partition("-")[2]](self, task)

    def beat(self) -> None:
        """One turn; what it says is kept with the launch that it says it of."""
        self.executor.heartbeat()
        for key, (state, info) in self.executor.get_event_buffer().items():
            launch_id = info.launch_id if isinstance(info, Outcome) else info
            self.heard[key.task_id].append((state, launch_id))

    def ends_told(self, task: str) -> list[tuple[str, str]]:
        """The final states that were handed out, each with its launch id."""
        return [(s, launch) for s, launch in self.heard[task] if s in ("success", "failed")]

    def picture(self) -> list[PodEvent]:
        """The last events of the pods that exist, as the watcher shows them."""
        pods = read_picture(self.stack.redis, self.stack.keys.pods(*PLACE))
        return list(pods.values())

    def all_are(self, state: PodState, tasks: Sequence[str]) -> bool:
        """Whether each of these tasks has a pod in this state."""
        found = {e.launch.key.task_id for e in self.picture() if e.state is state}
        return found.issuperset(tasks)

    def pods(self) -> list[str]:
        """Names of all pods."""
        return [pod["metadata"]["name"] for pod in self.stack.cluster.admin.get(PODS)["items"]]

    # Every moment, one after another.

    def live(self) -> None:
        """Bring every task to its moment, do there what is to be done, wait for what follows."""
        self.begin("buffered")
        self.act("buffered")
        self.begin("queued")
        self.beat()
        self.act("queued")
        self._no_room()
        self.stack.launcher()
        self._early_moments()
        self._held_creates()
        self._ends()
        self.until("nothing runs", lambda: not self.executor.running)
        self.until("no pod is left", lambda: not self.pods())
        parked = self.stack.keys.parked("default")
        self.until("nothing is parked", lambda: not self.stack.redis.exists(parked))

    def _no_room(self) -> None:
        refusal = {"status": 403, "reason": "Forbidden", "message": FULL}
        match = {**CREATE, "name_prefix": "dag-parked"}
        self._fault({"match": match, "action": refusal, "name": "full"})

    def _fault(self, rule: dict[str, object]) -> None:
        self.stack.cluster.admin.post("/_local/faults", rule)

    def _early_moments(self) -> None:
        parked = self.begin("parked")
        pending = self.begin("pending")
        running = self.begin("running", seconds=3.0)
        waiting, key = self.executor.waiting, self.key
        self.until("no room", lambda: all("quota" in (waiting(key(t)) or "") for t in parked))
        self.act("parked")
        self.stack.cluster.admin.request("DELETE", "/_local/faults", {"name": "full"})
        full = self.stack.keys.full_namespace(*PLACE)
        self.until("there is room", lambda: not self.stack.redis.exists(full))
        self.until("pending", lambda: self.all_are(PodState.PENDING, pending))
        self.act("pending")
        self._bind("pending-again")
        self.until("running", lambda: self.all_are(PodState.RUNNING, running))
        self.act("running")

    def _bind(self, task: str) -> None:
        """A scheduler finds a node for this task's first pod."""
        for event in self.picture():
            if (event.launch.key.task_id, event.launch.launch_id) == (task, "first"):
                target = {"metadata": {"name": event.pod}, "target": {"name": "local"}}
                self.stack.cluster.admin.post(f"{PODS}/{event.pod}/binding", target)

    def _held_creates(self) -> None:
        match = {**CREATE, "name_prefix": "dag-creating"}
        count = len(self.of("creating"))
        self._fault({"match": match, "action": {"hold_ms": HELD_MS}, "times": count})
        tasks = self.begin("creating", seconds=2.0)
        self.beat()
        launches = [Launch("kbroker", self.key(task), "first") for task in tasks]
        records = [self.stack.keys.task(launch.digest) for launch in launches]
        redis = self.stack.redis
        poll("granted", lambda: all(redis.hexists(record, "granted_at") for record in records))
        time.sleep(HELD_MS / 4000)  # the request is on its way, and held for far longer
        assert not any(pod.startswith("dag-creating") for pod in self.pods())
        self.act("creating")
        first = {naming.pod_name(launch.attempt(1)) for launch in launches}
        poll("they arrive all the same", lambda: first.issubset(self.pods()))

    def _ends(self) -> None:
        self._end("unread", lambda: None)
        self._end("told", self.executor.heartbeat)
        self._end("taken", self.beat)

    def _end(self, moment: str, listen: Callable[[], None]) -> None:
        self.beat()  # the lease is fresh
        tasks = self.begin(moment)
        self.executor._publish()  # a whole turn would listen, too
        poll("ended", lambda: self.all_are(PodState.SUCCEEDED, tasks))
        listen()
        self.act(moment)
