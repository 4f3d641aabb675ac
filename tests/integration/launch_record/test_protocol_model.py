"""Random interleavings of everybody against one launch record keep the promises.

Kubernetes is a dictionary of pods by name; launchers are the creates that they
may still send, late and more than once; Redis may lose everything. The executor
decides by its own rule, `task_state.next_step`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

import orjson
import pytest
import redis

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.launch_reply import Adopted, Granted, Missing, Published
from kbroker.message import DeleteMessage, Removal
from kbroker.record_scripts import removal_item
from kbroker.redis_client import connect
from kbroker.task_state import PHASE_OF, Phase, Step, View, next_step
from tests.integration.launch_record.world import World, pod_name

RELAUNCHES = 2
ENDS = (PodState.SUCCEEDED, PodState.FAILED)

# How often each happens among the others: what ends a history is rare, or none would be long.
WEIGHTS = {
    "launch": 4,
    "publish": 6,
    "hear": 3,
    "reconcile": 3,
    "withdraw": 1,
    "finish": 6,
    "grant": 6,
    "create": 10,
    "report": 3,
    "fail_without_a_pod": 1,
    "work_off_removals": 6,
    "start": 6,
    "end_one": 6,
    "delete_by_somebody": 2,
    "catch_up": 4,
    "watch": 3,
    "condemn": 1,
    "relist": 2,
    "pass_windows": 1,
    "lose_redis": 2,
}
OF_ONE = {"grant", "create", "fail_without_a_pod", "report", "start", "delete_by_somebody"}


@dataclass
class Pod:
    """One pod as the API server has it."""

    attempt: int
    uid: str
    state: PodState = PodState.PENDING
    started: Started = Started.NEVER
    version: int = 0


@dataclass
class Wish:
    """The launch as its executor sees it."""

    attempt: int = 1
    phase: Phase = Phase.BUFFERED
    known: PodEvent | None = None
    closed: bool = False
    published: set[int] = field(default_factory=set)

    @property
    def uid(self) -> str | None:
        """The uid of the present attempt's pod."""
        known = self.known
        return None if known is None or known.attempt.number != self.attempt else known.uid

    def hear(self, event: PodEvent) -> None:
        """Apply an event as the executor does."""
        step = next_step(View(self.phase, self.attempt, self.uid, RELAUNCHES), event)
        if step is Step.IGNORE:
            return
        self.known, self.attempt = event, event.attempt.number
        self.phase = PHASE_OF[event.state]
        if step is Step.RELAUNCH:
            self.attempt, self.phase = self.attempt + 1, Phase.BUFFERED


class Protocol:
    """One launch, any number of launchers, a watcher, an executor, a cluster."""

    def __init__(self, client: redis.Redis) -> None:
        client.flushall()
        self.world = World(client)
        self.wish = Wish()
        self.pods: dict[str, Pod] = {}
        self.unsent: list[tuple[PodEvent, bool]] = []  # what the watcher has not seen yet
        self.permitted: set[int] = set()  # attempts that a launcher may still create
        self.ran: set[str] = set()
        self.accepted: dict[int, set[str]] = defaultdict(set)
        self.create_before: tuple[int, int] = (0, 0)
        self.withdrawn = False

    def step(self, action: str, number: int, state: PodState) -> None:
        """Somebody does something; `number` says to which attempt or pod."""
        act = getattr(self, action)
        if action == "end_one":
            act(number, state)
        elif action in OF_ONE:
            act(number)
        else:
            act()

    def check(self) -> None:
        """What always holds."""
        self.at_most_one_container_ever_started()
        self.at_most_one_uid_is_accepted_for_an_attempt()
        self.a_final_state_is_the_last_word_on_an_attempt()
        record = self.world.record()
        self.a_window_never_shrinks_within_an_attempt(record)
        self.what_is_closed_expires_and_what_is_wanted_does_not(record)

    # The executor.

    def publish(self) -> None:
        if not self.wish.closed and self.wish.phase is Phase.BUFFERED:
            self.send()

    def send(self) -> None:
        if isinstance(self.world.publish(self.wish.attempt), Published):
            self.wish.published.add(self.wish.attempt)
            if self.wish.phase is Phase.BUFFERED:
                self.wish.phase = Phase.PUBLISHED

    def hear(self) -> None:
        if not self.wish.closed:
            for event in self.world.told():
                self.wish.hear(event)

    def reconcile(self) -> None:
        """Read the record; restore it, or publish again what Redis lost."""
        wish = self.wish
        if wish.closed:
            return
        reply = self.world.adopt(
            "exec-1", wish.attempt, known=wish.known if wish.uid is not None else None
        )
        if isinstance(reply, Missing) and wish.phase not in (Phase.BUFFERED, Phase.DONE):
            self.send()
        if isinstance(reply, Adopted):
            assert reply.record.attempt >= wish.attempt - 1
            if reply.record.event is not None:
                wish.hear(reply.record.event)

    def withdraw(self) -> None:
        if not self.wish.closed:
            assert self.world.withdraw(number=self.wish.attempt) == "ok"
            self.wish.closed = self.withdrawn = True

    def finish(self) -> None:
        wish = self.wish
        if wish.closed or wish.phase is not Phase.DONE or wish.known is None:
            return
        removal = None
        if wish.known.uid is not None:
            removal = self.world.removal(wish.attempt).changed(uid=wish.known.uid)
        assert self.world.finish(removal=removal) == "ok"
        wish.closed = True

    # Launchers: any message that was ever published may be delivered at any time.

    def launch(self) -> None:
        """The straight way, so that the crooked ones begin further along it."""
        self.publish()
        if self.wish.attempt in self.wish.published:
            self.grant(self.wish.attempt)
            self.create(self.wish.attempt)
            self.catch_up()

    def grant(self, number: int) -> None:
        if number not in self.wish.published:
            return
        reply = self.world.grant(number)
        if isinstance(reply, Granted):
            assert not self.wish.closed, "a closed launch was granted"
            assert reply.create_before > reply.now
            self.permitted.add(number)

    def create(self, number: int) -> None:
        """A request arrives, perhaps late, perhaps the second time."""
        name = pod_name(number)
        if number in self.permitted and name not in self.pods:
            self.world.version += 1
            pod = Pod(number, uid=f"uid-{number}-{self.world.version}")
            self.pods[name] = pod
            self.changed(pod)

    def report(self, which: int) -> None:
        pod = self.pick(which)
        if pod is not None:
            event = self.seen(pod)
            self.note(event, self.world.report(event))

    def fail_without_a_pod(self, number: int) -> None:
        """The API server refuses the manifest for good: nothing was or will be created."""
        if number not in self.wish.published or pod_name(number) in self.pods:
            return
        if number in self.permitted and not self.accepted[number]:
            self.permitted.discard(number)
            event = self.world.no_pod(PodState.FAILED, number, cause=Cause.ADMISSION)
            self.note(event, self.world.report(event))

    def work_off_removals(self) -> None:
        queue = self.world.keys.delete_queue("default")
        for message in self.world.removals():
            self.remove(message)
        self.world.redis.delete(queue)
        for item, body in self.world.drain():
            self.world.run(self.world.records.unpark("default", item))
            self.remove(DeleteMessage.from_dict(orjson.loads(body)))

    def remove(self, message: DeleteMessage) -> None:
        pod = self.pods.get(message.pod)
        if pod is None or pod.uid != message.uid:
            return
        early = message.not_before > self.world.now()
        if early or (message.removal is Removal.STOP and pod.state is not PodState.PENDING):
            # What runs ends where it is; what does not run yet may still start until it is told.
            if pod.state is PodState.RUNNING:
                self.end(pod, PodState.FAILED)
        else:
            self.gone(pod)
        if early and message.removal is Removal.DELETE:
            body = orjson.dumps(message.as_dict())
            park = self.world.records.park(
                "default", removal_item(message), body, 60.0, entry=None, event=None
            )
            assert self.world.run(park)

    # The cluster.

    def start(self, which: int) -> None:
        pod = self.pick(which)
        if pod is not None and pod.state is PodState.PENDING:
            pod.state, pod.started = PodState.RUNNING, Started.YES
            self.ran.add(pod.uid)
            self.changed(pod)

    def end_one(self, which: int, state: PodState) -> None:
        pod = self.pick(which)
        if pod is not None and not (pod.state is PodState.PENDING and state is PodState.SUCCEEDED):
            self.end(pod, state)

    def end(self, pod: Pod, state: PodState) -> None:
        if pod.state in (PodState.PENDING, PodState.RUNNING):
            pod.state = state
            self.changed(pod)

    def delete_by_somebody(self, which: int) -> None:
        """Not while a create may still be under way: a stranger does not hold names."""
        pod = self.pick(which)
        if pod is None or pod.attempt in self.permitted:
            return
        if self.world.record().get("uid") == pod.uid:
            self.gone(pod)

    def gone(self, pod: Pod) -> None:
        del self.pods[pod_name(pod.attempt)]
        if pod.state in (PodState.PENDING, PodState.RUNNING):
            pod.state = PodState.FAILED
        self.changed(pod, gone=True)

    def changed(self, pod: Pod, *, gone: bool = False) -> None:
        self.world.version += 1
        pod.version = self.world.version
        self.unsent.append((self.seen(pod), gone))

    # The watcher.

    def catch_up(self) -> None:
        """The watcher has nothing left to say, and the executor has heard it."""
        while self.unsent:
            self.watch()
        self.hear()

    def watch(self) -> None:
        if self.unsent:
            event, gone = self.unsent.pop(0)
            self.note(event, self.world.apply(event, gone=gone))

    def condemn(self) -> None:
        for pod in self.pods.values():
            if pod.state is PodState.PENDING:
                self.world.condemn(self.seen(pod))

    def relist(self) -> None:
        """What happened unseen stays unseen; what exists is seen."""
        self.unsent.clear()
        for pod in self.pods.values():
            event = self.seen(pod)
            self.note(event, self.world.apply(event))

    # Time, and Redis.

    def pass_windows(self) -> None:
        """Every launcher has given up what it was permitted, and Redis' clock agrees."""
        self.permitted.clear()
        self.create_before = (0, 0)
        world = self.world
        if "create_before" in world.record():
            world.pass_window()
        parked = world.keys.parked("default")
        for item in world.redis.zrange(parked, 0, -1):
            world.redis.zadd(parked, {item: 0})
            messages = world.keys.parked_messages("default")
            body = orjson.loads(world.redis.hget(messages, item))
            world.redis.hset(messages, item, orjson.dumps({**body, "not_before": 0}))

    def lose_redis(self) -> None:
        self.world.redis.flushall()
        version = self.world.version
        self.world = World(self.world.redis)
        self.world.version = version
        self.create_before = (0, 0)

    # Help.

    def pick(self, which: int) -> Pod | None:
        pods = list(self.pods.values())
        return pods[which % len(pods)] if pods else None

    def seen(self, pod: Pod) -> PodEvent:
        failed = pod.state is PodState.FAILED
        return self.world.event(pod.state, pod.attempt).changed(
            uid=pod.uid,
            resource_version=pod.version,
            started=pod.started,
            cause=Cause.DELETED if failed else None,
        )

    def note(self, event: PodEvent, outcome: str) -> None:
        if outcome == "applied" and event.uid is not None:
            self.accepted[event.attempt.number].add(event.uid)

    # What always holds.

    def at_most_one_container_ever_started(self) -> None:
        assert len(self.ran) <= 1, self.ran

    def at_most_one_uid_is_accepted_for_an_attempt(self) -> None:
        assert all(len(uids) <= 1 for uids in self.accepted.values()), self.accepted

    def a_final_state_is_the_last_word_on_an_attempt(self) -> None:
        over: set[int] = set()
        for event in self.world.told():
            assert event.attempt.number not in over, event
            if event.final:
                over.add(event.attempt.number)

    def a_window_never_shrinks_within_an_attempt(self, record: dict[str, str]) -> None:
        attempt, before = self.create_before
        present = int(record.get("attempt", 0)), int(record.get("create_before", 0))
        if present[0] == attempt:
            assert present[1] >= before
        self.create_before = present

    def what_is_closed_expires_and_what_is_wanted_does_not(self, record: dict[str, str]) -> None:
        if record:
            wanted = record["state"] == "wanted"
            assert (self.world.redis.pttl(self.world.task_key) == -1) is wanted
            assert bool(self.world.redis.zcard(self.world.keys.tasks)) is wanted
            assert not (wanted and self.withdrawn)


def explore(client: redis.Redis, seed: int, steps: int) -> None:
    """One history; a failure says how it came about."""
    chance = random.Random(seed)
    protocol = Protocol(client)
    protocol.launch()
    history: list[str] = []
    for _ in range(steps):
        (action,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        what = chance.randint(1, RELAUNCHES + 1), chance.choice(ENDS)
        history.append(f"{action} {what[0]} {what[1]}")
        try:
            protocol.step(action, *what)
            protocol.check()
        except AssertionError as error:
            error.add_note(f"seed {seed}: " + "; ".join(history))
            raise


@pytest.mark.parametrize("seeds", [range(i, i + 25) for i in range(0, 100, 25)], ids=str)
def test_random_interleavings_keep_the_promises(redis_url: str, seeds: range) -> None:
    with connect(redis_url, 5.0) as client:
        for seed in seeds:
            explore(client, seed, steps=45)
