"""Finished pods that are kept: whoever starts anew, nobody is told of them again unasked."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import pytest

from kbroker.executor import KubernetesExecutor
from kbroker.message import LaunchRequest
from tests.integration.scene import poll
from tests.integration.stack import Process, Run, Stack, running

PLACE = ("default", "default")
PODS = "/api/v1/namespaces/default/pods"
FAILS = 'echo "start $0 $HOSTNAME" >> "$1"; exit 3'
KEEPS = {
    "all": {"kubernetes__delete_worker_pods": False},
    "failed": {"kubernetes__delete_worker_pods_on_failure": False},
}
KEPT = collections.Counter(["all-good", "all-bad", "failed-bad", "all-long", "failed-long"])


class Keeper(Run):
    """An executor that keeps `all` pods, or `failed` ones, and what it has finished."""

    def __init__(self, stack: Stack, keeps: str) -> None:
        super().__init__(stack, self.begin(stack, keeps, f"exec-{keeps}"), keeps)
        self.good, self.bad, self.long = (f"{keeps}-{end}" for end in ("good", "bad", "long"))
        self.submit(self.good)
        self.want(self.bad, ["sh", "-c", FAILS, self.bad, str(stack.ledger_path)])
        self.submit(self.long, seconds=60)

    @staticmethod
    def begin(stack: Stack, keeps: str, executor_id: str) -> KubernetesExecutor:
        """A life of the executor."""
        return stack.executor(executor_id, **KEEPS[keeps])

    def request(self, task: str) -> LaunchRequest:
        """What its scheduler names when it starts anew."""
        return LaunchRequest(self.key(task), ["sh"], f"{self.name}-{task}")

    def adopted_by(self, executor_id: str, *tasks: str) -> None:
        """It was killed; another life of it, or another executor, adopts its list."""
        executor = self.executor = self.begin(self.stack, self.name, executor_id)
        requests = [self.request(task) for task in tasks]
        poll("adopted", lambda: executor.adopt(requests) == [])
        self.states.clear()

    def finished(self) -> bool:
        """Whether it has finished with both, and the long one runs."""
        self.beat()
        return len(self.finals) == 2 and not self.executor.waiting(self.key(self.long))


class World:
    """Both keepers on one stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.keepers = [Keeper(stack, keeps) for keeps in KEEPS]
        for keeper in self.keepers:
            poll("finished", keeper.finished)
        poll("the good one's pod is gone", lambda: self.beat() or self.pods() == KEPT, 20)
        for keeper in self.keepers:
            keeper.states.clear()

    def beat(self) -> None:
        """One turn of both."""
        for keeper in self.keepers:
            keeper.beat()

    def pods(self) -> collections.Counter[str]:
        """Task → how many pods it has."""
        items = self.stack.cluster.admin.get(PODS)["items"]
        return collections.Counter(pod["metadata"]["labels"]["task_id"] for pod in items)

    def held(self) -> collections.Counter[str]:
        """Task → how many of its pods cannot be deleted by whoever keeps them."""
        items = self.stack.cluster.admin.get(PODS)["items"]
        found = [pod["metadata"] for pod in items if pod["metadata"].get("finalizers")]
        return collections.Counter(metadata["labels"]["task_id"] for metadata in found)

    def lists(self) -> int:
        """How often a watcher has listed."""
        return sum(p.log.read_text().count("INFO kbroker.watcher: listed") for p in self.watchers)

    @property
    def watchers(self) -> list[Process]:
        """The watchers' processes, dead or alive."""
        return [p for p in self.stack.processes if "watcher" in p.log.name]

    def nothing_new(self) -> None:
        """Nobody is told of a finished task; the long ones still run; every pod is kept."""
        told = {}
        for _ in range(12):
            self.beat()
            told.update({task: states for k in self.keepers for task, states in k.states.items()})
        assert set(told) <= {keeper.long for keeper in self.keepers}
        assert all(set(states) <= {"running"} for states in told.values()), told
        for keeper in self.keepers:
            assert keeper.executor.running == {keeper.key(keeper.long)}
            results = self.stack.keys.results(keeper.executor.executor_id)
            assert self.stack.redis.xlen(results) == 0
        assert self.pods() == KEPT
        assert set(self.stack.starts().values()) == {1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {
        "core__executor_lease": 0.5,
        "core__reconcile_interval": 0.1,
        "kubernetes__create_window": 1.0,
        "kubernetes__retry_budget": 0.7,
        "watcher__lease": 0.6,
    }
    with running(tmp_path_factory.mktemp("stack"), launchers=1, **settings) as stack:
        yield World(stack)
        stack.kill()


def test_which_pods_are_kept(world: World) -> None:
    world.nothing_new()
    ends = {task: end for k in world.keepers for task, ((end, _),) in k.finals.items()}
    good, bad = "success", "failed"
    assert ends == {"all-good": good, "all-bad": bad, "failed-good": good, "failed-bad": bad}


def test_a_restarted_executor_that_adopts_its_list_is_not_told_again(world: World) -> None:
    same, another = world.keepers
    same.adopted_by("exec-all", same.long)
    another.adopted_by("exec-another", another.long)
    world.nothing_new()


def test_a_restarted_watcher_that_lists_tells_nobody(world: World) -> None:
    lists = world.lists()
    world.stack.processes[0].kill()
    world.stack.cluster.admin.post("/_local/compact", {})
    world.stack.redis.hdel(world.stack.keys.watch(*PLACE), "synced_at")
    world.stack.watcher()
    poll("listed", lambda: world.beat() or world.lists() > lists)
    world.nothing_new()


def test_a_scheduler_that_names_a_finished_launch_is_told_how_it_ended(world: World) -> None:
    told_again(world, "exec-all")


def test_after_a_loss_of_redis_nobody_is_told_again(world: World) -> None:
    _, another = world.keepers
    lists = world.lists()
    slow = {"match": {"verb": "list", "resource": "pods"}, "action": {"hold_ms": 1000}, "times": 1}
    world.stack.cluster.admin.post("/_local/faults", slow)
    world.stack.redis.flushall()
    # Its executor dies, too: all that the next one knows of the long task is that it is wanted.
    another.adopted_by("exec-after", another.long)
    poll("listed", lambda: world.beat() or world.lists() > lists)
    world.nothing_new()


def test_the_picture_tells_how_it_ended_after_a_loss_of_redis(world: World) -> None:
    told_again(world, "exec-all")


def test_whoever_keeps_them_may_delete_them(world: World) -> None:
    running = collections.Counter(keeper.long for keeper in world.keepers)
    poll("they are released", lambda: world.beat() or world.held() == running)


def told_again(world: World, executor_id: str) -> None:
    """Killed before it wrote down an end that it had heard: it is told once more, no more."""
    keeper, _ = world.keepers
    keeper.finals.clear()
    keeper.adopted_by(executor_id, keeper.long, keeper.bad, keeper.good)
    poll("both are told", keeper.finished)
    ends = {task: [state for state, _ in told] for task, told in keeper.finals.items()}
    assert ends == {keeper.good: ["success"], keeper.bad: ["failed"]}
    keeper.beat()
    keeper.states.clear()
    world.nothing_new()
