"""Watcher processes between a real Redis and the local cluster."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kbroker import KubernetesJobWatcher
from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.lease import Lease
from kbroker.local.cluster_process import LocalCluster
from kbroker.naming import pod_name
from tests.integration.scene import poll
from tests.integration.watcher_world import LEASE, WatcherWorld

# A command that ends when the test says so.
HELD = 'until [ -e "$0" ]; do sleep 0.05; done'
NOWHERE = {"nodeSelector": {"no": "such-node"}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with LocalCluster(folder, bookmark_interval=0.3) as running:
        yield running


@pytest.fixture
def world(
    redis_url: str, cluster: LocalCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[WatcherWorld]:
    """A namespace of its own, and an empty Redis."""
    made = WatcherWorld(redis_url, cluster, request.node.name.removeprefix("test_"), tmp_path)
    yield made
    made.close()


def gate(world: WatcherWorld) -> tuple[str, Callable[[], None]]:
    """A script that runs until the function is called."""
    path = world.folder / "go"
    return HELD.replace("$0", str(path)), path.touch


# What happens to a pod.


def test_the_executor_hears_of_every_state(world: WatcherWorld) -> None:
    world.watching()
    script, go = gate(world)
    attempt = world.launched("ok", script)
    world.runs(attempt)
    assert world.picture()[pod_name(attempt)].state is PodState.RUNNING
    go()
    final = world.final(attempt)
    assert (final.state, final.started, final.exit_code) == (PodState.SUCCEEDED, Started.YES, 0)
    states = world.states()["ok"]
    assert states[0] == "pending"
    assert states[-2:] == ["running", "succeeded"]
    versions = [event.resource_version for event in world.events(attempt)]
    assert versions == sorted(set(versions))


def test_a_failure_says_why_and_a_deleted_pod_leaves_the_picture(world: WatcherWorld) -> None:
    world.watching()
    attempt = world.launched("bad", "exit 3")
    final = world.final(attempt)
    assert (final.cause, final.exit_code) == (Cause.ERROR, 3)
    assert world.picture()[pod_name(attempt)].final
    world.remove(attempt)
    world.until("the picture is empty", lambda: not world.picture())
    world.final(attempt)


def test_a_running_pod_that_is_deleted(world: WatcherWorld) -> None:
    world.watching()
    attempt = world.launched("deleted", "sleep 60")
    world.runs(attempt)
    world.remove(attempt)
    final = world.final(attempt)
    assert (final.cause, final.started) == (Cause.DELETED, Started.YES)


def test_a_pod_deleted_before_it_was_bound_never_started(world: WatcherWorld) -> None:
    world.watching()
    attempt = world.launched("unbound", **NOWHERE)
    world.until("it is unschedulable", lambda: "unschedulable" in str(world.events(attempt)))
    waits = world.events(attempt)[-1]
    assert (waits.state, waits.cause) == (PodState.PENDING, Cause.UNSCHEDULABLE)
    world.remove(attempt)
    assert world.final(attempt).started is Started.NEVER


def test_a_pod_that_only_lost_its_labels_may_still_start(world: WatcherWorld) -> None:
    world.watching()
    attempt = world.launched("relabelled", **NOWHERE)
    world.until("it is in the picture", world.picture)
    pod = world.admin.get(f"{world.pods_path}/{pod_name(attempt)}")
    del pod["metadata"]["labels"]["kubernetes_executor"]
    world.admin.request("PUT", f"{world.pods_path}/{pod_name(attempt)}", pod)
    final = world.final(attempt)
    assert final.started is Started.UNKNOWN
    assert "lost its kbroker labels" in (final.message or "")


def test_pods_that_are_not_ours_are_named_once_and_left_alone(world: WatcherWorld) -> None:
    watcher = world.watching()
    attempt = world.wanted("mine")
    pod = world.create(attempt, "sleep 60")
    copy = {**pod["metadata"], "name": "a-copy"}
    for name in ("uid", "resourceVersion", "creationTimestamp"):
        del copy[name]
    world.admin.post(
        world.pods_path, {"metadata": copy, "spec": {"containers": pod["spec"]["containers"]}}
    )
    world.runs(attempt)
    world.until("the copy is named", lambda: "a-copy" in watcher.said)
    world.until("the copy has started", lambda: _phase(world, "a-copy") == "Running")
    assert set(world.picture()) == {pod_name(attempt)}
    assert watcher.said.count("a-copy") == 1
    assert world.removals() == []


def _phase(world: WatcherWorld, name: str) -> str:
    return str(world.admin.get(f"{world.pods_path}/{name}")["status"]["phase"])


# Restarts, gaps and broken connections.


def test_pods_that_finish_while_no_watcher_runs(world: WatcherWorld) -> None:
    first = world.leading()
    script, go = gate(world)
    attempts = [world.launched(f"t{n}", script) for n in range(3)]
    for attempt in attempts:
        world.runs(attempt)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    go()
    world.until("all have finished", lambda: {world.phase(a) for a in attempts} == {"Succeeded"})
    second = world.watcher()
    for attempt in attempts:
        assert world.final(attempt).state is PodState.SUCCEEDED
    # It resumed from the checkpoint, and gave the lease up before it ended.
    assert "listed" not in second.said
    assert world.states()["t0"].count("running") == 1


def test_410_with_deletions_in_the_gap(world: WatcherWorld) -> None:
    first = world.leading()
    script, go = gate(world)
    runs, waits, ends, done = (
        world.launched("runs", "sleep 60"),
        world.launched("waits", **NOWHERE),
        world.launched("ends", script),
        world.launched("done"),
    )
    for attempt in (runs, ends):
        world.runs(attempt)
    world.final(done)
    world.until("all are in the picture", lambda: len(world.picture()) == 4)
    first.kill()
    for attempt in (runs, waits, done):
        world.remove(attempt)
    go()
    world.until("it has finished", lambda: world.phase(ends) == "Succeeded")
    world.admin.post("/_local/compact", {})
    second = world.watching()
    gone = world.final(runs)
    assert (gone.cause, gone.started) == (Cause.VANISHED, Started.YES)
    assert gone.resource_version == world.progress().listed
    gone = world.final(waits)
    assert (gone.cause, gone.started) == (Cause.VANISHED, Started.UNKNOWN)
    assert world.final(ends).state is PodState.SUCCEEDED
    assert world.final(done).state is PodState.SUCCEEDED
    assert set(world.picture()) == {pod_name(ends)}
    assert "listed 1 pods" in second.said


@pytest.mark.parametrize("how", ["drop", "garbage", "half_line", "error410"])
def test_a_broken_watch_loses_and_repeats_nothing(world: WatcherWorld, how: str) -> None:
    world.watching()
    script, go = gate(world)
    before = world.launched("before", script)
    world.runs(before)
    world.admin.post("/_local/watches", {"action": how})
    during = world.launched("during")
    assert world.final(during).state is PodState.SUCCEEDED
    go()
    assert world.final(before).state is PodState.SUCCEEDED
    for attempt in (before, during):
        versions = [event.resource_version for event in world.events(attempt)]
        assert versions == sorted(set(versions))


def test_a_silent_connection_is_given_up(world: WatcherWorld) -> None:
    watcher = world.watching(watcher__silent_timeout=1.0)
    # What is heard is heard on the open watch: now there is one to silence.
    assert world.final(world.launched("heard")).state is PodState.SUCCEEDED
    world.admin.post("/_local/watches", {"action": "silence"})
    attempt = world.launched("unheard")
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert "silent for 1 s" in watcher.said


def test_an_idle_watch_beyond_the_servers_timeout_replays_nothing(world: WatcherWorld) -> None:
    watcher = world.watching(watcher__watch_timeout=1.0)
    attempt = world.launched("done")
    world.final(attempt)
    stream, watches = world.results(), world.requests("watch")
    world.until("the watch has ended thrice", lambda: world.requests("watch") >= watches + 3)
    assert world.results() == stream
    assert watcher.said.count("listed") == 1
    assert "resuming" not in watcher.said


def test_a_version_below_the_checkpoint_begins_a_new_generation(world: WatcherWorld) -> None:
    first = world.leading()
    script, go = gate(world)
    attempt = world.launched("runs", script)
    world.runs(attempt)
    first.kill()
    key = world.keys.watch(*world.place)
    world.redis.hset(key, "checkpoint", str(10**9))
    world.redis.hset(world.keys.task(attempt.launch.digest), "rv", str(10**9))
    world.sleep_past_lease()
    world.watching()
    world.until("it lists", lambda: world.progress().generation == 1)
    go()
    # By number alone this event would be older than what the record knows.
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert (world.progress().checkpoint or 0) < 10**9


def test_a_list_in_many_pages(world: WatcherWorld) -> None:
    attempts = [world.wanted(f"t{n}") for n in range(55)]
    for attempt in attempts:
        world.create(attempt, **NOWHERE)
    world.watching(watcher__page_size=10)
    names = {pod_name(attempt) for attempt in attempts}
    assert set(world.picture()) == names
    assert set(world.states()) == {f"t{n}" for n in range(55)}


# Leadership.


def test_a_standby_takes_over_within_the_lease(world: WatcherWorld) -> None:
    leader = world.leading()
    standby = world.watcher()
    world.until("it stands by", lambda: "stands by" in standby.said)
    script, go = gate(world)
    attempt = world.launched("runs", script)
    world.runs(attempt)
    leader.kill()
    killed = time.monotonic()
    go()
    world.until("the standby leads", lambda: "leads" in standby.said)
    assert time.monotonic() - killed < LEASE + 0.5
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert standby.name in world.progress().leader
    assert "listed" not in standby.said


def test_a_leader_that_ends_hands_over_at_once(world: WatcherWorld) -> None:
    leader = world.leading(watcher__lease=30.0)
    standby = world.watcher(watcher__lease=1.5)
    world.until("it stands by", lambda: "stands by" in standby.said)
    leader.signal(signal.SIGINT)
    assert leader.wait() == 0
    world.until("the standby leads", lambda: "leads" in standby.said, 3)


def test_a_leader_without_its_lease_writes_nothing(world: WatcherWorld) -> None:
    leader = world.leading()
    script, go = gate(world)
    attempt = world.launched("runs", script)
    world.runs(attempt)
    leader.signal(signal.SIGSTOP)
    other = Lease(world.redis, world.keys.lease(*world.place), 60.0)
    world.until("another one leads", other.acquire)
    go()
    later = world.launched("later")
    world.until(
        "both have finished", lambda: {world.phase(attempt), world.phase(later)} == {"Succeeded"}
    )
    world.remove(later)
    before = world.dump()
    leader.signal(signal.SIGCONT)
    world.until("it knows", lambda: leader.said.count("stands by") == 1)
    assert world.dump() == before
    other.release()
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert world.final(later).state is PodState.SUCCEEDED


def test_a_stopped_leader_whose_lease_ran_out_lists_or_resumes_as_a_new_one(
    world: WatcherWorld,
) -> None:
    leader = world.leading()
    token = world.redis.get(world.keys.lease(*world.place))
    leader.signal(signal.SIGSTOP)
    world.sleep_past_lease()
    attempt = world.launched("unseen")
    world.until("it has finished", lambda: world.phase(attempt) == "Succeeded")
    leader.signal(signal.SIGCONT)
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert "the lease is lost" in leader.said
    assert world.redis.get(world.keys.lease(*world.place)) not in (None, token)


def test_after_flushall_the_picture_is_made_anew(world: WatcherWorld) -> None:
    watcher = world.watching()
    script, go = gate(world)
    attempt = world.launched("runs", script)
    world.runs(attempt)
    world.redis.flushall()
    world.until("it leads again", lambda: watcher.said.count("leads") == 2)
    world.until("the picture is whole", lambda: pod_name(attempt) in world.picture())
    assert world.until("and says so", lambda: world.progress().complete_at)
    go()
    name = pod_name(attempt)
    world.until("it sees the end", lambda: world.picture()[name].state is PodState.SUCCEEDED)


# What it finds by itself.


def test_a_pod_that_cannot_pull_its_image_is_stopped(world: WatcherWorld) -> None:
    world.watching(watcher__fatal_waiting_grace=0.5)
    attempt = world.launched("unpullable", image="registry.invalid/nothing:1")
    asked = world.until("its stop is asked for", world.removals)[0]
    pod = world.admin.get(f"{world.pods_path}/{pod_name(attempt)}")
    assert (asked["removal"], asked["pod"]) == ("stop", pod_name(attempt))
    assert asked["uid"] == pod["metadata"]["uid"]
    assert asked["resource_version"] is not None
    assert "registry.invalid" in asked["reason"]
    # As a launcher carries out a stop.
    pod["spec"]["activeDeadlineSeconds"] = 1
    del pod["metadata"]["resourceVersion"]
    world.admin.request("PUT", f"{world.pods_path}/{pod_name(attempt)}", pod)
    final = world.final(attempt)
    assert (final.cause, final.started) == (Cause.IMAGE_PULL, Started.NEVER)


def test_a_pod_that_waits_too_long_is_stopped_once(world: WatcherWorld) -> None:
    world.watching(watcher__pending_timeout=0.5, watcher__check_interval=0.1)
    attempt = world.launched("waits", **NOWHERE)
    world.until("its stop is asked for", world.removals)
    record = world.redis.hget(world.keys.task(attempt.launch.digest), "condemned")
    assert b'"unschedulable"' in record
    watched = world.requests("watch")
    time.sleep(0.5)  # some more checks: nothing more is asked for
    assert len(world.removals()) == 1
    assert world.requests("watch") == watched


def test_a_standby_judges_pods_that_it_has_never_seen(world: WatcherWorld) -> None:
    first = world.leading(watcher__pending_timeout=600.0)
    world.launched("waits", **NOWHERE)
    world.until("it is in the picture", world.picture)
    first.kill()
    second = world.watching(watcher__pending_timeout=0.5)
    world.until("its stop is asked for", world.removals)
    assert "listed" not in second.said


def test_a_finished_pod_whose_executor_is_gone_is_removed(world: WatcherWorld) -> None:
    lost, owned = world.attempt("lost"), world.attempt("owned")
    world.create(lost, executor="dead-executor")
    world.create(owned)
    running = world.attempt("running")
    world.create(running, "sleep 60", executor="dead-executor")
    watcher = world.watching(watcher__orphan_after=1.0)
    asked = world.until("its removal is asked for", world.removals)[0]
    assert (asked["pod"], asked["removal"]) == (pod_name(lost), "delete")
    uid = world.picture()[pod_name(lost)].uid
    assert asked["uid"] == uid
    world.until("the running one is reported", lambda: "still runs" in watcher.said)
    assert {removal["pod"] for removal in world.removals()} == {pod_name(lost)}


# The process.


def test_once(world: WatcherWorld) -> None:
    attempt = world.launched("done")
    world.until("it has finished", lambda: world.phase(attempt) == "Succeeded")
    watcher = world.watcher("--once")
    assert watcher.wait() == 0
    assert world.final(attempt).state is PodState.SUCCEEDED
    assert world.progress().synced_at
    assert not world.redis.exists(world.keys.lease(*world.place))


def test_it_waits_for_redis_and_says_so_once(world: WatcherWorld, unused_port: int) -> None:
    watcher = world.watcher(broker__url=f"redis://127.0.0.1:{unused_port}")
    world.until("it says so", lambda: "Redis is not available" in watcher.said)
    time.sleep(1)
    assert watcher.said.count("Redis is not available") == 1
    watcher.signal(signal.SIGTERM)
    assert watcher.wait() == 0


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"kubernetes__kubeconfig": "/nowhere/kubeconfig"}, 1, "/nowhere/kubeconfig"),
        ({"kubernetes__namespace": "no-such-namespace"}, 1, "kubectl create namespace"),
        ({"broker__url": ""}, 2, "broker.url"),
        ({"broker__url": "http://localhost"}, 2, "broker.url"),
    ],
    ids=["no cluster", "no namespace", "no redis", "not a redis"],
)
def test_what_cannot_work_ends_with_one_line(
    world: WatcherWorld, values: dict[str, Any], code: int, words: str
) -> None:
    watcher = world.watcher(**values)
    assert watcher.wait() == code
    lines = watcher.said.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("kbroker: error: ")
    assert words in lines[0]


def test_a_missing_permission_is_named(world: WatcherWorld) -> None:
    deny = {"user": "limited", "deny": [{"verb": "watch", "resource": "pods"}]}
    token = world.admin.post("/_local/tokens", deny)["token"]
    limited = world.folder / "kubeconfig"
    text = world.cluster.kubeconfig.read_text()
    limited.write_text(text.replace(world.cluster.token, token))
    watcher = world.watcher(kubernetes__kubeconfig=str(limited))
    assert watcher.wait() == 1
    assert "no permission to watch pods" in watcher.said
    assert token not in watcher.said


def test_the_class_with_its_four_arguments_and_a_plain_queue(
    world: WatcherWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.config().as_env().items():
        monkeypatch.setenv(name, value)
    before = world.attempt("before")
    world.create(before, "sleep 60")
    world.until("it runs", lambda: world.phase(before) == "Running")
    events: queue.Queue[PodEvent] = queue.Queue()
    watcher = KubernetesJobWatcher(world.namespace, events, "0", "a-worker")
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        first = events.get(timeout=10)
        assert (first.attempt, first.state) == (before, PodState.RUNNING)
        world.admin.post("/_local/watches", {"action": "error410"})
        after = world.attempt("after")
        world.create(after)
        told = []
        poll("the end", lambda: told.append(events.get(timeout=10)) or told[-1].final)
        # The list after the 410 repeats nothing.
        assert {event.attempt for event in told} == {after}
    finally:
        watcher.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert int(watcher.resource_version or 0) > 0


def test_a_lost_connection_to_redis_is_repaired_by_resuming(world: WatcherWorld) -> None:
    watcher = world.watching()
    attempt = world.launched("runs", "sleep 60")
    world.runs(attempt)
    world.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    later = world.launched("later")
    assert world.final(later).state is PodState.SUCCEEDED
    assert watcher.said.count("listed") == 1
