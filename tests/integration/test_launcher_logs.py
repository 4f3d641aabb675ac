"""Logs of real pods through real launchers: what somebody gets to see with Redis alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kbroker.kube_config import KubeConfig
from kbroker.local.cluster_process import LocalCluster
from kbroker.log_message import LogRequest, reply_name
from kbroker.message import LaunchMessage
from kbroker.naming import pod_name
from kbroker.task import Launch
from kbroker.task_log import TaskLog, task_log
from tests.integration.launcher_world import LauncherProcess, World, config
from tests.integration.launcher_world import poll as until
from tests.integration.stack import Run, running

SH = ("sh", "-c")
PAST = 4.0  # seconds: what was asked is answered before


class Viewer:
    """Looks at the logs of a run's tasks."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def launch(self, task: str) -> Launch:
        return Launch("kbroker", self.run.key(task), f"{self.run.name}-{task}")

    def pod(self, task: str) -> str:
        record = self.run.stack.keys.task(self.launch(task).digest)
        return (self.run.stack.redis.hget(record, "pod") or b"").decode()

    def look(self, task: str, **more: Any) -> TaskLog:
        began = time.monotonic()
        log = task_log(self.run.stack.redis, self.run.stack.config(), self.launch(task), **more)
        assert time.monotonic() - began < PAST
        return log

    def until(self, task: str, note: str, text: str = "") -> TaskLog:
        """What there is to see once this is told of it, and stands in it."""
        seen: list[TaskLog] = []

        def told() -> bool:
            seen[:] = [self.look(task)]
            return note in "\n".join(seen[0].notes) and text in seen[0].text

        self.run.until(f"{note!r} of {task}", told)
        return seen[0]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """Of tasks with all that belongs to them: executor, launcher, watcher."""
    settings = {
        # Pods stay when they are done, and when they cannot start.
        "kubernetes__delete_worker_pods": False,
        "watcher__fatal_waiting_grace": 600.0,
        "core__executor_lease": 60.0,
    }
    with running(tmp_path_factory.mktemp("stack"), launchers=1, **settings) as stack:
        yield Viewer(Run(stack, stack.executor()))


class TestATask:
    def test_that_runs(self, viewer: Viewer) -> None:
        viewer.run.want("runs", [*SH, "for n in 1 2 3; do echo $n; done; echo oh >&2; sleep 60"])
        log = viewer.until("runs", "It is running", "oh\n")
        assert sorted(log.text.split()) == ["1", "2", "3", "oh"]
        assert log.source == f"pod default/{viewer.pod('runs')}, container base, last 4 lines"
        (note,) = log.notes
        assert note.startswith("It is running on node ")
        assert viewer.look("runs", lines=2).source.endswith("container base, last 2 lines")

    def test_that_has_succeeded(self, viewer: Viewer) -> None:
        viewer.run.want("done", [*SH, "echo hello"])
        log = viewer.until("done", "It succeeded.")
        assert (log.text, log.notes) == ("hello\n", ("It succeeded.",))

    def test_that_has_failed(self, viewer: Viewer) -> None:
        viewer.run.want("crashed", [*SH, "echo aargh; exit 3"])
        log = viewer.until("crashed", "It failed with exit code 3: ")
        assert log.text == "aargh\n"
        assert "Kubernetes reported: Started: " in "\n".join(log.notes)

    def test_that_no_node_can_take(self, viewer: Viewer) -> None:
        viewer.run.want("big", ["true"], executor_config={"node_selectors": {"disk": "huge"}})
        log = viewer.until("big", "Kubernetes reported: FailedScheduling: ")
        assert log.text == ""
        assert log.source == f"pod default/{viewer.pod('big')}"
        assert log.notes[0].startswith("Its pod has not started: no node can run the pod: ")

    def test_whose_image_cannot_be_pulled(self, viewer: Viewer) -> None:
        viewer.run.want("pulls", ["true"], executor_config={"image": "registry.invalid/x:1"})
        log = viewer.until("pulls", "Its pod has not started: the image of container base cannot")
        assert log.text == ""
        reported = [note for note in log.notes if note.startswith("Kubernetes reported: ")]
        assert any("registry.invalid/x:1" in note for note in reported)

    def test_that_waits_for_quota(self, viewer: Viewer) -> None:
        admin = viewer.run.stack.cluster.admin
        admin.post("/api/v1/namespaces", {"metadata": {"name": "full"}})
        quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
        admin.post("/api/v1/namespaces/full/resourcequotas", quota)
        viewer.run.want("parked", ["true"], executor_config={"namespace": "full"})
        log = viewer.until("parked", "It is parked: no room in the namespace: exceeded quota: q")
        assert (log.text, log.source, len(log.notes)) == ("", "", 1)

    def test_whose_pod_is_gone(self, viewer: Viewer) -> None:
        viewer.run.want("gone", [*SH, "echo last words; exit 4"])
        viewer.until("gone", "It failed with exit code 4", "last words")
        pods = "/api/v1/namespaces/default/pods"
        name = viewer.pod("gone")
        viewer.run.stack.cluster.admin.delete(f"{pods}/{name}")
        log = viewer.until("gone", "Its pod no longer exists, and its log went with it.")
        assert log.text == ""
        assert log.source == f"pod default/{name}"
        assert log.notes[0].startswith("It failed with exit code 4: ")

    def test_that_nobody_has_heard_of(self, viewer: Viewer) -> None:
        assert viewer.look("never").notes[0].startswith("Nothing is recorded of dag.never run")


# Launchers and what stands in their way.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


Start = Callable[..., LauncherProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts launchers of two threads that end with the test."""
    started: list[LauncherProcess] = []

    def launcher(settings: KubeConfig) -> LauncherProcess:
        started.append(LauncherProcess(settings, tmp_path / f"launcher-{len(started)}.log"))
        until("it is up", lambda: "ready for action" in started[-1].said, 60)
        return started[-1]

    yield launcher
    for process in started:
        process.kill()


@pytest.fixture
def world(redis_url: str, cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[World]:
    """A namespace without launchers and without a watcher."""
    name = request.node.name.removeprefix("test_")
    # A launch that is not answered keeps its thread for as long as a test.
    patient = {"request_timeout": 60.0, "retry_budget": 60.0, "create_window": 60.0}
    settings = {f"kubernetes.{name}": seconds for name, seconds in patient.items()}
    yield World(redis_url, cluster, name, **settings)
    cluster.admin.delete("/_local/faults")


def look(world: World, message: LaunchMessage, wait: float = 3.0) -> TaskLog:
    began = time.monotonic()
    log = task_log(world.redis, world.config, message.attempt.launch, wait=wait)
    assert time.monotonic() - began < wait + 1
    return log


def speaking(world: World, task: str = "speaks") -> LaunchMessage:
    """A task that has said "hello" and runs on."""
    message = world.message(task, (*SH, "echo hello; sleep 60"))
    world.launch(message)
    until("it runs", lambda: world.phase(message) == "Running")
    until("it speaks", lambda: "hello" in look(world, message).text)
    return message


def test_without_a_watcher_there_is_a_log_and_it_is_said(world: World, start: Start) -> None:
    start(world.config)
    message = speaking(world)
    log = look(world, message)
    assert log.text == "hello\n"
    assert log.notes[0].startswith("Its pod exists and has not started yet. No watcher leads")
    assert log.notes[1] == "By now its pod is running."


def in_hand(world: World) -> int:
    return int(world.redis.xpending(world.queue, "launchers")["pending"])


def test_launches_that_are_stuck_keep_no_log_from_being_shown(world: World, start: Start) -> None:
    start(world.config)
    message = speaking(world)
    world.fault({"hold_ms": 60_000}, verb="create", resource="pods")
    # One for each thread, and one that is next.
    for number in range(1, 4):
        world.launch(world.message(f"stuck-{number}"))
        until("it is in hand", lambda n=number: in_hand(world) == n)
    assert look(world, message).text == "hello\n"
    assert all(not event.launch.key.task_id.startswith("stuck") for event in world.events())


def answered(world: World, request: LogRequest) -> bool:
    return bool(world.redis.exists(world.keys.reply(request.reply)))


def test_a_flood_of_requests_keeps_no_launch_from_being_made(world: World, start: Start) -> None:
    """Two hundred logs that the API server does not answer for, and then a launch."""
    start(world.config)
    message = speaking(world)
    world.fault({"hold_ms": 60_000}, verb="get", resource="pods")
    until_ms = world.now() + 60_000
    place = ("prod", "default", world.namespace, pod_name(message.attempt), None, 100)
    requests = [LogRequest(*place, reply_name(), until_ms) for _ in range(200)]
    queue = world.keys.log_queue("default")
    world.redis.rpush(queue, *(request.encode() for request in requests))
    # By now it has taken as many as it takes at once, and will do so again every two seconds.
    until("the first are given up", lambda: any(answered(world, one) for one in requests))
    launches = [world.message(f"t{number}", ("sleep", "60")) for number in range(20)]
    world.launch(*launches)
    until("the pods exist", lambda: len(world.pods()) == 21)
    assert world.redis.llen(queue) > 100
    until("they are reported", lambda: all(world.last(launch) for launch in launches))


def pushes(world: World) -> int:
    """How many requests, and answers, there have been."""
    return int(world.redis.info("commandstats")["cmdstat_rpush"]["calls"])


def test_a_killed_launchers_request_is_not_waited_for_and_the_next_one_answers(
    world: World, start: Start
) -> None:
    first = start(world.config)
    message = speaking(world)
    world.fault({"hold_ms": 60_000}, verb="get", resource="pods")
    asked: list[TaskLog] = []
    asking = threading.Thread(target=lambda: asked.append(look(world, message)))
    pushed = pushes(world)
    asking.start()
    stats = "get pods"
    until("it is asked", lambda: pushes(world) > pushed)
    until("it is taken", lambda: not world.redis.exists(world.keys.log_queue("default")))
    first.kill()
    asking.join(10)
    assert asked[0].notes[-1] == (
        "A launcher was asked for its log and gave no answer within 3 s: try again."
    )
    # The next one asks for nothing that a dead one was asked for.
    log = look(world, message, wait=0.5)
    assert log.notes[-1].startswith("No launcher of cluster default answered within 0.5 s.")
    world.admin.delete("/_local/faults")
    before = dict(world.admin.get("/_local/stats"))
    start(world.config)
    assert look(world, message).text == "hello\n"
    after = world.admin.get("/_local/stats")
    assert after[f"{stats} 200"] - before.get(f"{stats} 200", 0) == 1


def test_an_api_server_that_does_not_answer(world: World, start: Start) -> None:
    start(world.config)
    message = speaking(world)
    # The pod is told of, its log is not: its node is out of reach.
    held = {"verb": "get", "resource": "pods"}
    world.admin.post("/_local/faults", {"match": held, "skip": 1, "action": {"hold_ms": 60_000}})
    assert look(world, message).notes[1:] == (
        "By now its pod is running.",
        "Its log cannot be read: the Kubernetes API did not answer in time (get pods/log).",
    )
    assert look(world, message).notes[1:] == (
        "The Kubernetes API did not answer in time (get pods).",
    )


@pytest.mark.parametrize(
    ("verb", "resource", "command", "note"),
    [
        ("get", "pods/log", "echo hello; sleep 60", "Its log cannot be read: the launcher has no"),
        ("list", "events", "exit 3", "Its events cannot be read: the launcher has no permission"),
    ],
    ids=["logs", "events"],
)
def test_a_launcher_that_may_not_says_what_it_lacks_and_works(
    world: World,
    cluster: LocalCluster,
    start: Start,
    tmp_path: Path,
    verb: str,
    resource: str,
    command: str,
    note: str,
) -> None:
    user = {"user": "limited", "deny": [{"verb": verb, "resource": resource}]}
    token = cluster.admin.post("/_local/tokens", user)["token"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.token, token))
    launcher = start(config(world.config.broker.url, kubeconfig))
    lack = f"no permission to {verb} {resource} in namespace"
    assert f"tasks' logs cannot be shown in full: {lack}" in launcher.said
    message = world.message("limited", (*SH, command))
    world.launch(message)
    until("it has started", lambda: world.phase(message) in ("Running", "Failed"))
    until("its launcher has said so", lambda: world.last(message))
    notes = look(world, message).notes
    assert any(said.startswith(note) for said in notes), notes
    assert any(f"to {verb} {resource} in namespace" in said for said in notes)


def test_a_launcher_that_is_refused_says_so(
    world: World, cluster: LocalCluster, start: Start, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    content = cluster.kubeconfig.read_text()
    kubeconfig.write_text(content)
    start(config(world.config.broker.url, kubeconfig))
    message = speaking(world)
    kubeconfig.write_text(content.replace(cluster.token, "ended"))
    world.fault({"status": 401, "reason": "Unauthorized"}, verb="create", resource="pods")
    world.launch(world.message("refused"))
    until("it is not ready", lambda: "launcher is not ready" in look(world, message).notes[-1])
    assert look(world, message).notes[-1].startswith("The launcher is not ready: ")
