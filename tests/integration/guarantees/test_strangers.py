"""Somebody else deletes a pod of which nobody has heard: its container is not started again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kbroker.event import Cause
from tests.integration.scene import poll
from tests.integration.stack import Run, Stack

PODS = "/api/v1/namespaces/default/pods"
# Longer than a launcher waits for an answer.
LATE_MS = 2600


class Strangers(Run):
    """Their pods are deleted by force while no watcher runs."""

    def delete_started(self, task: str) -> None:
        """As soon as its container has started; the object stays, with its name."""
        poll("it has started", lambda: self.stack.starts()[task])
        (pod,) = self.pods(task)
        self.stack.cluster.admin.delete(f"{PODS}/{pod['metadata']['name']}?gracePeriodSeconds=0")
        (held,) = self.pods(task)
        assert held["metadata"]["uid"] == pod["metadata"]["uid"]

    def pods(self, task: str) -> list[dict[str, dict[str, str]]]:
        """Its pods at the API server."""
        found = self.stack.cluster.admin.get(f"{PODS}?labelSelector=task_id%3D{task}")
        items: list[dict[str, dict[str, str]]] = found["items"]
        return items


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strangers]:
    """Both have ended."""
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        run = Strangers(stack, stack.executor())
        match = {"verb": "create", "resource": "pods", "name_prefix": "dag-unanswered"}
        rule = {"match": match, "action": {"latency_after_ms": LATE_MS}, "times": 1}
        stack.cluster.admin.post("/_local/faults", rule)
        run.submit("unanswered", "unheard", seconds=60)
        run.beat()
        stack.launcher()
        for task in ("unheard", "unanswered"):
            run.delete_started(task)
        # The create of the one is sent again about now; of the other nobody knows any more.
        stack.redis.flushall()
        stack.watcher()
        run.until("both are final", lambda: len(run.finals) == 2)
        yield run
        run.executor.end()
        stack.kill()


@pytest.mark.parametrize("task", ["unanswered", "unheard"])
def test_it_has_failed_and_ran_once(run: Strangers, task: str) -> None:
    assert run.stack.starts()[task] == 1
    ((state, outcome),) = run.finals[task]
    assert (state, outcome.cause, outcome.attempts) == ("failed", Cause.DELETED, 1)


def test_nothing_holds_their_pods_any_more(run: Strangers) -> None:
    poll(
        "they are gone", lambda: run.beat() or not run.pods("unanswered") + run.pods("unheard"), 15
    )
