"""Launcher processes between a real Redis and the local cluster."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kbroker.bench.cpu import members
from kbroker.event import Cause, PodState, Started
from kbroker.kube_config import KubeConfig
from kbroker.local.cluster_process import LocalCluster
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.message import LaunchMessage, Removal
from kbroker.naming import pod_name

from .launcher_world import LauncherProcess, World, config, entry, poll

SLEEP = ("sleep", "60")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def launchers(
    redis_server: EmbeddedRedis, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LauncherProcess]:
    """One command with two processes, for the tests that kill nothing."""
    settings = config(redis_server.url, cluster.kubeconfig)
    log = tmp_path_factory.mktemp("launchers") / "log"
    process = LauncherProcess(settings, log, processes=2)
    yield process
    process.kill()
    assert "secret" not in process.said


@pytest.fixture
def world(
    redis_url: str,
    cluster: LocalCluster,
    launchers: LauncherProcess,
    request: pytest.FixtureRequest,
) -> Iterator[World]:
    """A namespace with launchers that run."""
    yield World(redis_url, cluster, request.node.name.removeprefix("test_"))
    cluster.admin.delete("/_local/faults")


@pytest.fixture
def idle_world(
    redis_url: str, cluster: LocalCluster, request: pytest.FixtureRequest
) -> Iterator[World]:
    """A namespace and queues that no launcher serves yet."""
    name = request.node.name.removeprefix("test_")
    yield World(redis_url, cluster, name, prefix="{idle}:")
    cluster.admin.delete("/_local/faults")


Start = Callable[..., LauncherProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts launchers that end with the test."""
    started: list[LauncherProcess] = []

    def launcher(settings: KubeConfig) -> LauncherProcess:
        started.append(LauncherProcess(settings, tmp_path / f"launcher-{len(started)}.log"))
        return started[-1]

    yield launcher
    for process in started:
        process.kill()


def test_every_launch_becomes_exactly_one_pod(world: World) -> None:
    messages = [world.message(f"t{n}") for n in range(60)]
    for priority, part in (("low", messages[:20]), ("high", messages[20:25])):
        world.launch(*part, priority=priority)
    world.launch(*messages[25:])
    poll("all are reported", lambda: len(world.states()) == 60)
    names = collections.Counter(pod["metadata"]["name"] for pod in world.pods())
    assert names == collections.Counter(pod_name(m.attempt) for m in messages)
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in world.pods()}
    assert {event.pod: event.uid for event in world.events()} == uids
    pod = world.pods()[0]
    assert pod["metadata"]["annotations"]["kbroker/create-before"].endswith("Z")
    poll("the queues are empty", world.idle)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has it")
def test_launchers_interrupt_nobody(world: World, launchers: LauncherProcess) -> None:
    world.launch(world.message("any"))
    poll("they work", world.events)
    tasks = [Path(f"/proc/{pid}/task").iterdir() for pid in members(launchers.child.pid)]
    threads = [int(task.name) for found in tasks for task in found]
    policies = collections.Counter(os.sched_getscheduler(thread) for thread in threads)
    # Two processes, and in each at least an event loop and a thread for each batch.
    assert policies[os.SCHED_BATCH] >= 2 * 4, policies


def test_a_pod_whose_reply_was_lost_is_not_created_twice(world: World) -> None:
    world.fault({"reset": "after"}, times=6, verb="create", resource="pods")
    messages = [world.message(f"t{n}", SLEEP) for n in range(8)]
    world.launch(*messages)
    poll("all are reported", lambda: len(world.states()) == 8)
    assert len(world.pods()) == 8
    reported = {event.pod: event.uid for event in world.events()}
    assert reported == {p["metadata"]["name"]: p["metadata"]["uid"] for p in world.pods()}


def test_retry_after_is_obeyed_by_all_launchers(world: World) -> None:
    world.fault({"status": 429, "retry_after": 2}, times=1, verb="create", resource="pods")
    began = time.monotonic()
    world.launch(world.message("first"))
    pace = world.keys.pace("default")
    poll("the pace is told", lambda: world.redis.hexists(pace, "not_before"))
    world.launch(*(world.message(f"t{n}") for n in range(5)))
    poll("all are created", lambda: len(world.pods()) == 6)
    assert time.monotonic() - began >= 1.9
    poll("all are reported", lambda: len(world.states()) == 6)


def test_launches_wait_for_quota_and_say_so(world: World) -> None:
    world.quota(2)
    messages = [world.message(f"t{n}", SLEEP) for n in range(4)]
    world.launch(*messages)
    poll("all are reported", lambda: len(world.states()) == 4)
    waiting = [m for m in messages if (e := world.last(m)) and e.state is PodState.WAITING]
    assert len(waiting) == 2
    event = world.last(waiting[0])
    assert event is not None
    assert event.cause is Cause.QUOTA
    assert "exceeded quota: q" in (event.message or "")
    assert "waiting since" in (event.message or "")
    assert world.redis.zcard(world.keys.parked("default")) == 2
    for pod in world.pods():
        world.remove(pod)
    poll("the others are created", lambda: all(world.pod(m) for m in waiting))
    poll("and reported", lambda: all(world.last(m).uid for m in waiting))  # type: ignore[union-attr]
    poll("nothing is left", world.idle)
    # A reason is told once, however often it was looked at.
    assert collections.Counter(len(s) for s in world.states().values()) == {1: 2, 2: 2}


def test_a_launcher_killed_between_create_and_acknowledgement(
    idle_world: World, start: Start
) -> None:
    world = idle_world
    world.fault({"latency_after_ms": 60_000}, times=5, verb="create", resource="pods")
    messages = [world.message(f"t{n}", SLEEP) for n in range(5)]
    world.launch(*messages)
    first = start(world.config)
    poll("the pods exist", lambda: len(world.pods()) == 5)
    first.kill()
    assert world.events() == []
    second = start(world.config)
    poll("all are reported", lambda: len(world.states()) == 5)
    poll("nothing is left", world.idle)
    assert len(world.pods()) == 5
    assert {e.uid for e in world.events()} == {p["metadata"]["uid"] for p in world.pods()}
    # A graceful end, while we are at it.
    second.child.send_signal(signal.SIGTERM)
    assert second.child.wait(60) == 0
    assert "Traceback" not in second.said


def test_thousands_are_spread_over_the_launchers_in_full_batches(
    idle_world: World, start: Start
) -> None:
    world = idle_world
    # As long as no create is answered, everybody keeps what it has read.
    world.fault({"hold_ms": 60_000}, verb="create", resource="pods")
    patient = {"request_timeout": 60.0, "retry_budget": 60.0, "create_window": 60.0}
    settings = config(
        world.config.broker.url,
        world.kubeconfig,
        **{"broker.prefix": world.config.broker.prefix},
        **{f"kubernetes.{name}": seconds for name, seconds in patient.items()},
    )
    world.redis.xgroup_create(world.queue, "launchers", id="0", mkstream=True)
    world.launch(*(world.message(f"t{n}") for n in range(1000)))
    started = [start(settings) for _ in range(4)]  # of two threads each

    def in_hand() -> list[int]:
        consumers = world.redis.xinfo_consumers(world.queue, "launchers")
        return sorted(consumer["pending"] for consumer in consumers)

    poll("all have work", lambda: in_hand() == [75] * 4, 60)
    assert all(launcher.child.poll() is None for launcher in started)
    # A batch for each thread and one that is next; what nobody has in hand is for anybody.
    time.sleep(0.5)
    assert in_hand() == [75] * 4


def test_one_task_is_sent_at_once(idle_world: World, start: Start) -> None:
    world = idle_world
    launcher = start(world.config)
    poll("it is up", lambda: "ready for action" in launcher.said, 60)
    for number in range(5):
        message = world.message(f"t{number}")
        world.launch(message)
        # Alone, and not before a batch is full: there is nothing else to wait for.
        poll("it is created", lambda m=message: world.pod(m))
        poll("it is done", world.idle)
    assert launcher.said.count("1 messages: 1 report") == 5


def test_expired(world: World) -> None:
    message = world.message("late", expires_at=world.now() - 5)
    world.launch(message)
    event = poll("it failed", lambda: world.last(message))
    assert (event.state, event.started, event.cause) == (
        PodState.FAILED,
        Started.NEVER,
        Cause.EXPIRED,
    )
    assert "not launched: it waited" in event.message
    assert world.pods() == []


def test_what_the_api_refuses_for_good_fails_with_its_words(world: World) -> None:
    bad = world.message("bad", executor_config={"env": {"": "x"}})
    template = world.message("template", executor_config={"pod_template_file": "/nowhere"})
    world.launch(bad, template)
    refused = poll("it failed", lambda: world.last(bad))
    assert (refused.state, refused.started) == (PodState.FAILED, Started.NEVER)
    assert refused.cause in (Cause.ADMISSION, Cause.CONFIG_ERROR)
    unusable = poll("it failed", lambda: world.last(template))
    assert unusable.cause is Cause.CONFIG_ERROR
    assert "/nowhere" in unusable.message


def test_garbage_stops_nothing(world: World) -> None:
    broken = world.message("broken")
    world.launch(broken)
    poll("it runs", lambda: world.last(broken))
    for garbage in (b"{", b"[]", b'{"actor_name":"launch.normal"}'):
        world.redis.xadd(world.queue, {"message": garbage})
    world.redis.xadd(world.queue, {"nonsense": b"1"})
    body = orjson.loads(entry("launch.normal", world.queue, world.message("halfway", ("secret",))))
    body["args"][0]["namespace"] = 7
    world.redis.xadd(world.queue, {"message": orjson.dumps(body)})
    good = world.message("good")
    world.launch(good)
    poll("the good one runs", lambda: world.last(good))
    poll("all garbage is dead", lambda: world.redis.xlen(world.keys.dead) == 5)
    poll("nothing is left", world.idle)


def test_a_message_that_is_never_finished_dies_and_its_launch_is_judged(
    idle_world: World, start: Start
) -> None:
    world = idle_world
    message = world.message("poison")
    world.launch(message)
    queue, dead = world.queue, "somebody"
    world.redis.xgroup_create(queue, "launchers", id="0")
    world.redis.xreadgroup("launchers", dead, {queue: ">"})
    entry_id = world.redis.xrange(queue)[0][0]
    world.redis.xclaim(queue, "launchers", dead, 0, [entry_id], retrycount=3, idle=60_000)
    start(world.config)
    event = poll("it is told", lambda: world.last(message))
    assert (event.state, event.cause) == (PodState.WAITING, Cause.DEAD)
    assert world.redis.xlen(world.keys.dead) == 1
    assert world.pods() == []


def test_a_withdrawn_launch_is_never_created(world: World) -> None:
    world.quota(0)
    parked = world.message("parked")
    world.launch(parked)
    poll("it is parked", lambda: world.redis.zcard(world.keys.parked("default")))
    world.withdraw(parked.attempt)
    # A message that comes after all, as after a fail-over to an older replica.
    world.redis.xadd(world.queue, {"message": entry("launch.normal", world.queue, parked)})
    world.admin.delete(f"/api/v1/namespaces/{world.namespace}/resourcequotas/q")
    after = world.message("after")
    world.launch(after)
    poll("the next one is created", lambda: world.pod(after))
    poll("nothing is left", world.idle)
    assert [p["metadata"]["name"] for p in world.pods()] == [pod_name(after.attempt)]


def running(world: World, *tasks: str, **more: Any) -> list[LaunchMessage]:
    messages = [world.message(task, SLEEP, **more) for task in tasks]
    world.launch(*messages)
    poll("they run", lambda: all(world.phase(m) == "Running" for m in messages))
    return messages


def test_deleting(world: World) -> None:
    messages = running(world, "a", "b", "c")
    *unwanted, kept = world.pods()
    for pod in unwanted:
        world.remove(pod)
    world.remove({"metadata": {**kept["metadata"], "uid": "another"}})
    world.remove({"metadata": {"name": "never-was", "uid": "x"}})
    poll("they are gone", lambda: len(world.pods()) == 1)
    poll("nothing is left", world.idle)
    assert world.pods()[0]["metadata"]["uid"] == kept["metadata"]["uid"]
    assert "deletionTimestamp" not in world.pods()[0]["metadata"]
    assert len(messages) == 3


def test_a_name_is_held_until_its_permission_has_ended(world: World) -> None:
    (message,) = running(world, "held")
    pod = world.pod(message)
    assert pod is not None
    not_before = world.now() + 2_500
    world.remove(pod, not_before=not_before)
    # It ends at once, but its name stays taken.
    poll("it is stopped", lambda: world.phase(message) == "Failed", 2.4)
    assert world.now() < not_before
    assert world.redis.zrange(world.keys.parked("default"), 0, -1) == [
        f"delete:{pod['metadata']['uid']}".encode()
    ]
    poll("it is gone", lambda: world.pod(message) is None)
    assert world.now() >= not_before
    poll("nothing is left", world.idle)


def test_stopping_a_pod_that_cannot_start(world: World) -> None:
    message = world.message("pull", executor_config={"image": "registry.invalid/x:1"})
    world.launch(message)

    def waits() -> bool:
        statuses = (world.pod(message) or {}).get("status", {}).get("containerStatuses") or [{}]
        return "Image" in str(statuses[0].get("state", {}).get("waiting", {}).get("reason"))

    poll("it cannot be pulled", waits)
    pod = world.pod(message)
    assert pod is not None
    world.remove(
        pod, removal=Removal.STOP, resource_version=int(pod["metadata"]["resourceVersion"])
    )
    poll("it has failed", lambda: world.phase(message) == "Failed")
    stopped = world.pod(message)
    assert stopped is not None  # for the watcher to see that nothing started
    assert stopped["status"]["reason"] == "DeadlineExceeded"
    poll("nothing is left", world.idle)


def test_refused_credentials_make_launches_wait(
    idle_world: World, cluster: LocalCluster, start: Start, tmp_path: Path
) -> None:
    world, kubeconfig = idle_world, tmp_path / "kubeconfig"
    content = cluster.kubeconfig.read_text()
    kubeconfig.write_text(content)
    settings = config(
        world.config.broker.url, kubeconfig, **{"broker.prefix": world.config.broker.prefix}
    )
    launcher = start(settings)
    poll("it is up", lambda: "ready for action" in launcher.said)
    # The token ends, and the one that is read anew is refused too.
    kubeconfig.write_text(content.replace(cluster.token, "ended"))
    world.fault({"status": 401, "reason": "Unauthorized"}, verb="create", resource="pods")
    messages = [world.message(f"t{n}") for n in range(3)]
    world.launch(*messages)
    poll("they wait", lambda: all(world.last(m) for m in messages))
    said = {event.message for event in world.events()}
    assert all("the launcher is not ready" in str(message) for message in said), said
    kubeconfig.write_text(content)
    world.admin.delete("/_local/faults")
    poll("they are created", lambda: len(world.pods()) == 3)
    poll("nothing is left", world.idle)
    launcher.kill()
    assert launcher.said.count("not ready, launches wait") == 1
    assert "ready again" in launcher.said
    assert "Traceback" not in launcher.said


def test_what_ends_a_launcher_at_once_in_one_line(
    redis_url: str, cluster: LocalCluster, unused_port: int, start: Start, tmp_path: Path
) -> None:
    cluster.admin.delete("/_local/faults")
    content = cluster.kubeconfig.read_text()
    user = {"user": "limited", "deny": [{"verb": "patch", "resource": "pods"}]}
    limited = cluster.admin.post("/_local/tokens", user)["token"]
    for name, token in (("wrong", "x"), ("limited", limited)):
        (tmp_path / name).write_text(content.replace(cluster.token, token))
    good = cluster.kubeconfig
    cases = [
        (2, "broker.url is empty", {"broker.url": ""}, good),
        (1, "no Redis at", {"broker.url": f"redis://127.0.0.1:{unused_port}"}, good),
        (1, "kubeconfig", {}, tmp_path / "missing"),
        (1, "refuses the credentials", {}, tmp_path / "wrong"),
        (1, "no permission to patch pods", {}, tmp_path / "limited"),
        (1, "namespace 'nowhere' does not exist", {"kubernetes.namespace": "nowhere"}, good),
    ]
    started = [
        (code, words, start(config(redis_url, kubeconfig, **more)))
        for code, words, more, kubeconfig in cases
    ]
    for code, words, process in started:
        assert process.child.wait(60) == code, (words, process.said)
        lines = [x for x in process.said.splitlines() if x.startswith("launcher: error:")]
        assert len(lines) == 1, (words, process.said)
        assert words in lines[0]
        assert "Traceback" not in process.said
