"""Any interleaving of executors, launchers, a watcher and a cluster keeps the promises.

`launch_record/test_protocol_model.py` plays the protocol of one record; here the executor, the
launcher and the watcher are the real ones, with the real scripts on fakeredis and one clock for
all. What is played is what lies between them, see `world`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kbroker.errors import LeaseLostError
from kbroker.redis_client import run
from kbroker.task import TaskKey
from kbroker.task_state import Phase
from tests.unit.executor_model.cluster import BUSY, FOR_GOOD, QUOTA, Stored
from tests.unit.executor_model.settling import settle
from tests.unit.executor_model.world import World

KEYS = [TaskKey("dag", f"task-{number}", "run") for number in (1, 2)]
ON_THE_BROKER = (Phase.PUBLISHED, Phase.WAITING, Phase.PENDING, Phase.RUNNING)

names = st.sampled_from(World.NAMES)
any_of = st.integers(0, 11)


class ExecutorModel(RuleBasedStateMachine):
    """Each rule is one thing that may happen to somebody, or that somebody does."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        for name in World.NAMES:
            self.world.start_executor(name)
        self.world.lead()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                settle(self.world)
                self.at_most_one_container_starts()
            finally:
                self.world.close()

    # The scheduler and its executors.

    @rule(name=names, key=st.sampled_from(KEYS))
    def execute_async(self, name, key) -> None:
        """A new launch; a key's launches come from one executor while the last one is not over."""
        world = self.world
        present = [w for w in world.wants.values() if w.launch.key == key]
        if present and present[-1].wanted:
            name = present[-1].owner
        if name in world.executors:
            world.want(name, key)

    @rule(name=names, key=st.sampled_from(KEYS), steps=st.integers(0, 2))
    def launch(self, name, key, steps) -> None:
        """The straight way, so that the crooked ones begin further along it."""
        world = self.world
        self.execute_async(name, key)
        for executor in world.executors.values():
            executor.heartbeat()
        for entry, raw in world.entries(world.queues[0])[-1:]:
            world.deliver(world.queues[0], entry, raw)
        for request in world.cluster.requests[-1:]:
            self.world.cluster.answer(request)
            self.world.work()
        for pod in list(world.cluster.pods.values())[-1:]:
            for step in (world.cluster.bind, world.cluster.start)[:steps]:
                step(pod)

    @rule(name=names)
    def catch_up(self, name) -> None:
        """The watcher has nothing left to say, and the executor has heard it."""
        if self.world.term is None:
            self.world.lead()
        if self.world.term is not None:
            self.lead_on(lambda term: term.watch(len(self.world.cluster.log)))
            self.lead_on(lambda term: term.bookmark())
        self.heartbeat(name)

    @rule(name=names)
    def heartbeat(self, name) -> None:
        if name in self.world.executors:
            self.world.executors[name].heartbeat()

    @rule(name=names)
    def get_event_buffer(self, name) -> None:
        if name in self.world.executors:
            self.world.hand_out(name)

    @rule(key=st.sampled_from(KEYS))
    def revoke(self, key) -> None:
        wants = [w for w in self.world.wants.values() if w.launch.key == key]
        if wants and wants[-1].wanted and wants[-1].owner in self.world.executors:
            wants[-1].revoked = self.world.executors[wants[-1].owner].revoke(key)

    @rule(which=any_of)
    def cancel(self, which) -> None:
        wants = list(self.world.wants.values())
        if wants:
            want = wants[which % len(wants)]
            call = self.world.records.cancel(want.launch.digest, "cancelled by ann")
            if run(self.world.redis, [call])[0].outcome == "ok":
                want.cancelled = True

    @rule(name=names)
    def executor_crashes(self, name) -> None:
        if name in self.world.executors:
            self.world.crash(name)

    @rule(name=names)
    def executor_starts(self, name) -> None:
        if name not in self.world.executors:
            self.world.start_executor(name)
            self.world.recover(name)

    @rule(name=names)
    def adopt(self, name) -> None:
        """Another executor takes over, once the dead one's lease has run out."""
        if name in self.world.executors:
            self.world.recover(name)

    # Launchers.

    @rule(queue=st.sampled_from([0, 1]), which=any_of, dies=st.sampled_from([False, False, True]))
    def deliver(self, queue, which, dies) -> None:
        key = self.world.queues[queue]
        entries = self.world.entries(key)
        if entries:
            self.world.deliver(key, *entries[which % len(entries)], dies=dies)

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @rule(which=any_of, what=st.sampled_from(["answer", "answer", "arrive", "reset"]))
    @precondition(lambda self: self.world.cluster.requests)
    def request(self, which, what) -> None:
        """Something becomes of a request that is on its way."""
        cluster = self.world.cluster
        request = cluster.requests[which % len(cluster.requests)]
        getattr(cluster, what)(request)
        self.world.work()

    @rule(which=any_of)
    @precondition(lambda self: self.world.jobs)
    def launcher_dies(self, which) -> None:
        self.world.kill(self.world.jobs[which % len(self.world.jobs)])

    # The cluster.

    def pod(self, which) -> Stored | None:
        pods = list(self.world.cluster.pods.values())
        return pods[which % len(pods)] if pods else None

    @rule(which=any_of, steps=st.integers(1, 4))
    @precondition(lambda self: self.world.cluster.pods)
    def pod_goes_on(self, which, steps) -> None:
        """It is bound, starts, is seen to run, and ends."""
        pod, cluster = self.pod(which), self.world.cluster
        if not pod.node:
            cluster.bind(pod)
        for step in (cluster.start, cluster.show)[: steps - 1]:
            step(pod)
        if steps == 4:
            cluster.end(pod, well=True)

    @rule(which=any_of, reason=st.sampled_from(["", "Evicted", "OutOfcpu"]))
    @precondition(lambda self: self.world.cluster.pods)
    def pod_fails(self, which, reason) -> None:
        """Before or after its start."""
        self.world.cluster.end(self.pod(which), well=False, reason=reason)

    @rule(which=any_of)
    @precondition(lambda self: self.world.cluster.pods)
    def node_obeys(self, which) -> None:
        self.world.cluster.obey(self.pod(which))

    @rule(which=any_of, force=st.booleans())
    @precondition(lambda self: self.world.cluster.pods)
    def somebody_deletes(self, which, force) -> None:
        self.world.cluster.delete(self.pod(which), force=force)

    @rule(refusal=st.sampled_from([None, None, QUOTA, FOR_GOOD, BUSY]))
    def creates_are_refused(self, refusal) -> None:
        self.world.cluster.refusal = refusal

    # The watcher.

    @rule(count=st.integers(1, 6))
    @precondition(lambda self: self.world.term is not None)
    def watch(self, count) -> None:
        self.lead_on(lambda term: term.watch(count))

    @rule()
    @precondition(lambda self: self.world.term is not None)
    def bookmark(self) -> None:
        self.lead_on(lambda term: term.bookmark())

    @rule(breaks=st.booleans())
    @precondition(lambda self: self.world.term is not None)
    def relist(self, breaks) -> None:
        self.lead_on(lambda term: term.list_all(breaks=breaks))
        if breaks:
            self.world.term = None

    @rule(count=st.integers(1, 3))
    @precondition(lambda self: self.world.term is not None)
    def hear_again(self, count) -> None:
        """The same events come again."""
        term = self.world.term
        term.cursor = max(0, term.cursor - count)
        self.lead_on(lambda term: term.watch(count))

    @rule()
    @precondition(lambda self: self.world.term is not None)
    def watcher_checks(self) -> None:
        self.lead_on(lambda term: self.world.loop.finish(term.checks.check()))

    @rule()
    @precondition(lambda self: self.world.term is not None)
    def watcher_dies(self) -> None:
        self.world.term = None

    @rule()
    @precondition(lambda self: self.world.term is None)
    def watcher_leads(self) -> None:
        self.world.lead()

    def lead_on(self, step) -> None:
        try:
            if self.world.term is not None:
                step(self.world.term)
        except LeaseLostError:
            self.world.term = None

    # Time, and Redis.

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 9.0, 25.0, 70.0]))
    def time_passes(self, seconds) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([3.0, 9.0]))
    def everybody_lives_on(self, seconds) -> None:
        """Time passes, and leases are renewed meanwhile."""
        self.world.pass_time(seconds)
        for executor in self.world.executors.values():
            executor.sync()
        if self.world.term is not None:
            self.lead_on(lambda term: term.renew())

    @rule(what=st.sampled_from(["executors", "launchers"]))
    def redis_is_away(self, what) -> None:
        """Somebody needs it just then."""
        world = self.world
        world.server.connected = False
        if what == "executors":
            for executor in world.executors.values():
                executor.heartbeat()
        else:
            for request in list(world.cluster.requests):
                world.cluster.answer(request)
                world.work()
        world.server.connected = True

    @rule()
    def flushall(self) -> None:
        if self.world.redis_may_be_lost():
            self.world.lose_redis()

    # What always holds.

    @invariant()
    def at_most_one_container_starts(self) -> None:
        for launch, started in self.world.cluster.starts.items():
            assert len(started) <= 1, f"{launch} ran {started}"

    @invariant()
    def phases_and_running_agree(self) -> None:
        for executor in self.world.executors.values():
            newest = {t.key: t for t in executor._launches if t.newest}
            for key, tracked in newest.items():
                if tracked.phase in ON_THE_BROKER:
                    assert key in executor.running, tracked
                if tracked.phase is Phase.RUNNING:
                    assert self.world.cluster.starts[tracked.attempt.launch], tracked
            for key in executor.running:
                assert newest[key].phase is not Phase.DONE, newest[key]


def test_an_adoption_that_waits_for_a_lease_outlives_the_return_of_the_old_owner() -> None:
    """A history that the machine has found."""
    model = ExecutorModel()
    model.begin()
    model.launch("exec-b", KEYS[0], steps=0)
    model.executor_crashes("exec-b")
    model.time_passes(25.0)
    model.adopt("exec-a")
    model.teardown()


SETTINGS = settings(
    max_examples=75,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(240)
def test_the_executor_keeps_its_promises_whatever_comes_in_between() -> None:
    """In a process of its own, so that nothing which other tests leave behind changes its examples.

    `derandomize` alone does not do that: Hypothesis may draw constants of modules that are loaded.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__], capture_output=True, text=True, timeout=230, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    run_state_machine_as_test(ExecutorModel, settings=SETTINGS)
