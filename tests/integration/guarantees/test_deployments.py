"""Two installations in one namespace, with all names alike, never touch each other's pods."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbroker.local.cluster_process import LocalCluster
from kbroker.result_stream import read_picture
from tests.integration.scene import poll
from tests.integration.stack import LEDGER_TASK, Drive, Roles

PLACE = ("default", "default")
PODS = "/api/v1/namespaces/default/pods"
TASKS = [f"t{n}" for n in range(10)]
LONG = "long"
# As labels they are alike but for a hash.
DEPLOYMENTS = ("prod", "prod!")


class Installation:
    """One deployment with a Redis, roles and an executor of its own."""

    def __init__(self, roles: Roles, name: str, folder: Path) -> None:
        self.roles = roles
        self.name = name
        self.ledger = folder / f"ledger-{name}"
        self.ledger.touch()
        roles.watcher()
        roles.launcher()
        roles.until_led()
        # The same executor id, run id, keys and launch ids on both sides.
        self.drive = Drive(roles, roles.executor("exec-1"))

    def want(self, task: str, seconds: float = 0.1) -> None:
        """A task that writes to this installation's ledger."""
        self.drive.want(task, ["sh", "-c", LEDGER_TASK, task, str(self.ledger), str(seconds)])

    def started(self) -> list[str]:
        """The tasks that have started, in alphabetical order."""
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return sorted(task for what, task, _ in lines if what == "start")

    def picture(self) -> dict[str, str]:
        """Pod → deployment, of the pods that its watcher shows."""
        found = read_picture(self.roles.redis, self.roles.keys.pods(*PLACE))
        return {name: event.launch.deployment for name, event in found.items()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def both(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Installation]]:
    """Both have run their tasks; the second keeps its pods."""
    with contextlib.ExitStack() as stack:
        sides = []
        for name in DEPLOYMENTS:
            folder = tmp_path_factory.mktemp("roles")
            settings: dict[str, Any] = {
                "core__deployment": name,
                "kubernetes__kubeconfig": str(cluster.kubeconfig),
                "kubernetes__delete_worker_pods": name == DEPLOYMENTS[0],
                "kubernetes__create_window": 1.2,
                "kubernetes__retry_budget": 1.0,
                "core__executor_lease": 0.6,
                "watcher__orphan_after": 1.0,
            }
            roles = stack.enter_context(Roles(folder, **settings))
            sides.append(Installation(roles, name, folder))
        first, second = sides
        for side in sides:
            for task in TASKS:
                side.want(task)
            side.want(LONG, 60)
        poll("both have run", lambda: [beat(side) for side in sides] == [True, True], 30)
        yield first, second
        for side in sides:
            side.roles.kill()


def beat(side: Installation) -> bool:
    """One turn; whether all is done but what takes long."""
    side.drive.beat()
    return len(side.drive.finals) == len(TASKS) and LONG in side.started()


def test_each_hears_only_of_its_own(both: tuple[Installation, Installation]) -> None:
    for side in both:
        assert side.started() == sorted([LONG, *TASKS])
        finals = {t: [state for state, _ in told] for t, told in side.drive.finals.items()}
        assert finals == {task: ["success"] for task in TASKS}
        uids = [outcome.uid for told in side.drive.finals.values() for _, outcome in told]
        assert len(set(uids)) == len(TASKS)
        assert set(side.picture().values()) == {side.name}


def test_a_revoked_task_of_the_same_key_runs_on_elsewhere(
    both: tuple[Installation, Installation], cluster: LocalCluster
) -> None:
    first, second = both
    assert first.drive.executor.revoke(first.drive.key(LONG))
    poll("its pods are gone", lambda: beat(first) and beat(second) and not first.picture(), 20)
    assert second.drive.executor.running == {second.drive.key(LONG)}
    running = [p for p in cluster.admin.get(PODS)["items"] if p["status"]["phase"] == "Running"]
    deployments = [pod["metadata"]["annotations"]["kbroker/deployment"] for pod in running]
    assert deployments == [second.name]


def test_each_deletes_and_sweeps_only_its_own(
    both: tuple[Installation, Installation], cluster: LocalCluster
) -> None:
    first, second = both
    first.want("orphan")
    first.drive.executor.heartbeat()
    # The first's executor dies, and stays dead for longer than its pods are kept; the other's
    # pods name an executor that is called the same.
    poll("it has run", lambda: "orphan" in first.started())
    poll("it is seen", first.picture)
    poll("it is swept", lambda: beat(second) and not first.picture())
    redis, keys = first.roles.redis, first.roles.keys
    left = (keys.results("exec-1"), keys.executors)
    poll("its executor is forgotten", lambda: beat(second) and not redis.exists(*left))
    stats = cluster.admin.get("/_local/stats")
    deleted = {name: count for name, count in stats.items() if name.startswith("delete pods")}
    assert deleted == {"delete pods 200": len(TASKS) + 2}
    assert set(second.picture().values()) == {second.name}
    assert len(second.picture()) == len(TASKS) + 1
    assert second.drive.executor.running == {second.drive.key(LONG)}
    said = "".join(p.log.read_text() for side in both for p in side.roles.processes)
    assert "is of deployment" not in said  # a launcher's error about a delete
    assert "none of ours" not in said  # a watcher's warning about a pod
