"""Tasks of one executor, whose pods a case plays the node of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from kbroker.pod import Pod
from tests.conformance.cluster import Cluster
from tests.conformance.played_node import PlayedNode
from tests.integration.stack import Drive, Roles

COMMAND = ("sh", "-c", "true")
REAL_NODE: dict[str, Any] = {"pod_override": {"spec": {"schedulerName": "default-scheduler"}}}


class Flow(Drive):
    """One case's tasks.

    Args:
        roles: the launchers and watchers.
        cluster: as its administrator.
        name: of the run.
        executor: has been started.
    """

    def __init__(
        self,
        roles: Roles,
        cluster: Cluster,
        name: str,
        executor: KubernetesExecutor,
    ) -> None:
        super().__init__(roles, executor, name)
        self.namespace = roles.config().kubernetes.namespace
        self.node = PlayedNode(cluster, self.namespace)
        self._cluster = cluster

    def submit(self, *tasks: str, command: Sequence[str] = COMMAND, **config: Any) -> None:
        """Want tasks to run; `config` is their executor config."""
        for task in tasks:
            executor_config = {"KubernetesExecutor": config} if config else None
            self.want(task, command, executor_config=executor_config)

    def waits_for(self, task: str) -> str:
        """What the executor says about why a task has not started; "" for nothing."""
        return self.executor.waiting(self.key(task)) or ""

    def request(self, task: str) -> LaunchRequest:
        """What another executor adopts a task by."""
        return LaunchRequest(self.key(task), COMMAND, f"{self.name}-{task}")

    def pods(self, task: str) -> list[Pod]:
        """The pods of a task that exist."""
        selector = f"task_id={task},run_id={self.name}"
        page = self._cluster.do(self._cluster.kube.list_pods(self.namespace, selector, limit=10))
        return list(page.items)

    def pod(self, task: str, but: str = "") -> Pod:
        """The pod of a task, once it exists; not the one of this name."""

        def found() -> Pod | None:
            return next((pod for pod in self.pods(task) if pod.name != but), None)

        pod: Pod = self.until(f"{task} has a pod", found)
        return pod

    def run(self, task: str) -> Pod:
        """Let a task's pod run, until the executor knows."""
        pod = self.pod(task)
        self.node.bind(pod.name)
        self.node.runs(pod.name)
        self.until(f"{task} is known to run", lambda: "running" in self.states[task])
        return pod

    def end(self, task: str) -> None:
        """Let a task's pod run and end well, until the executor knows."""
        pod = self.run(task)
        self.node.ends(pod.name)
        self.until(f"{task} is final", lambda: self.finals[task])

    def outcome(self, task: str) -> tuple[str, Outcome]:
        """How a task ended, once it has; exactly once."""
        self.until(f"{task} is final", lambda: self.finals[task])
        ((state, info),) = self.finals[task]
        return state, info

    def cleared(self, *tasks: str) -> None:
        """Wait until the pods of tasks are gone."""
        self.until("the pods are gone", lambda: not any(map(self.pods, tasks)))


NewFlow = Callable[..., Flow]  # (name, **settings of its executor)
