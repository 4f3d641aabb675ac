"""What a consumer reads, holds, gives back and buries, within one worker."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import Middleware, SkipMessage

from kbroker.broker import StreamsBroker
from kbroker.keys import LAUNCHERS_GROUP
from kbroker.queue_entry import DeadEntry
from kbroker.redis_client import connect
from kbroker.stream_queue import Delivery, StreamQueue
from tests.integration.broker_scene import REDELIVERED_AFTER, Scene

KEY = "{kbroker}:batch"


@pytest.fixture
def scene(redis_url: str, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(redis_url, tmp_path)
    yield scene
    scene.close()


class Recorder(Middleware):
    """Which hooks dramatiq called, in order, and for which actor."""

    HOOKS = ("enqueue", "process_message", "ack", "nack")

    def __init__(self, reject: bool = False) -> None:
        self.seen: list[str] = []
        self._reject = reject
        for hook in self.HOOKS:
            for when in ("before", "after"):
                setattr(self, f"{when}_{hook}", self._record(f"{when}_{hook}"))

    def _record(self, name: str) -> Callable[..., None]:
        def hook(_broker: Any, message: Any, *_: Any, **__: Any) -> None:
            self.seen.append(name)
            if self._reject and name == "before_process_message":
                message.fail()
                raise SkipMessage("not wanted")

        return hook


# What dramatiq asks of every broker.


def test_nothing_is_sent_if_one_queue_is_unknown(scene: Scene) -> None:
    known = scene.sender.get_actor("plain").message("fine")
    with pytest.raises(QueueNotFound):
        scene.sender.enqueue_many([known, known.copy(queue_name="nowhere")])
    assert scene.redis.xlen("{kbroker}:plain") == 0


def test_what_a_middleware_rejects_is_dead_with_its_reason(scene: Scene) -> None:
    recorder = Recorder(reject=True)
    scene.sender.add_middleware(recorder)
    with scene.worker():
        scene.send("unwanted", "unwanted too")
        scene.until_empty()
        scene.until("it is rejected", lambda: "after_nack" in recorder.seen)
    assert {dead["reason"] for dead in scene.dead()} == {"rejected: not wanted"}
    assert len(scene.dead()) == 2
    assert scene.started() == []


def test_messages_keep_their_order(scene: Scene) -> None:
    names = [str(number) for number in range(60)]
    scene.send(*names, queue="plain")
    with scene.worker(threads=1):
        scene.until_empty("plain")
    assert scene.done() == names


def test_a_queue_is_declared_once(redis_url: str) -> None:
    declared: list[str] = []

    class Declarations(Middleware):
        def after_declare_queue(self, _broker: Any, queue_name: str) -> None:
            declared.append(queue_name)

    broker = StreamsBroker(redis_url, middleware=[Declarations()])
    broker.declare_queue("one")
    broker.declare_queue("one")
    assert declared == ["one"]
    assert broker.get_declared_queues() == {"one"}
    assert broker.get_declared_delay_queues() == set()
    broker.close()


def test_flush_drops_what_waits_and_what_is_worked_on(scene: Scene) -> None:
    with scene.worker():
        scene.send("running", until=str(scene.gates))
        scene.until("it runs", scene.started)
        scene.send("elsewhere", queue="plain", until=str(scene.gates))
        scene.until("both run", lambda: len(scene.started()) == 2)
        scene.sender.flush("batch")
        assert scene.sender.queue_stats("batch").length == 0
        assert scene.sender.queue_stats("plain").length == 1
        scene.open_gate("running", "elsewhere")
        scene.send("afterwards")
        scene.until("the queue works on", lambda: "afterwards" in scene.done())
    scene.send("x")
    scene.send("y", queue="plain")
    scene.sender.flush_all()
    assert [scene.sender.queue_stats(q).length for q in ("batch", "plain")] == [0, 0]


@pytest.mark.parametrize(
    ("url", "timeout", "message"),
    [(None, None, "either"), ("redis://h", 9.0, "either"), (None, 1.0, "must exceed")],
)
def test_a_client_that_cannot_be_used_is_refused(
    url: str | None, timeout: float | None, message: str
) -> None:
    client = None if timeout is None else connect("redis://127.0.0.1", timeout)
    with pytest.raises(ValueError, match=message):
        StreamsBroker(url, client=client, block=2.0)


# Batches.


def test_an_idle_worker_begins_at_once(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    latencies = []
    with scene.worker(scene.broker(block=2.0)):
        for number in range(40):
            sent = time.time()
            scene.send(str(number))
            line = scene.until("it runs", lambda n=number: scene.ledger.lines("start")[n:])[0]
            latencies.append(line["at"] - sent)
            scene.until_empty()
    assert [len(call) for call in scene.ledger.calls()] == [1] * 40
    p50 = statistics.median(latencies)
    with capsys.disabled():
        print(f"\nsend to run on an idle worker: p50 {p50 * 1000:.1f} ms")
    assert p50 < 0.2  # it takes 2 ms; polling would take half of its interval


def test_what_waits_forms_batches(scene: Scene) -> None:
    scene.send(*[str(number) for number in range(60)])
    with scene.worker(threads=1):
        scene.until_empty()
    assert [len(call) for call in scene.ledger.calls()] == [25, 25, 10]
    assert scene.done() == [str(number) for number in range(60)]


def test_two_actors_share_a_queue_in_batches_of_their_own(redis_url: str) -> None:
    calls: list[tuple[str, int]] = []
    broker = StreamsBroker(redis_url, block=0.2)
    for name, size in (("small", 2), ("large", 10)):
        dramatiq.actor(actor_name=name, queue_name="q", batch_size=size, broker=broker)(
            lambda entries, name=name: calls.append((name, len(entries)))
        )
    one = dramatiq.actor(actor_name="one", queue_name="q", broker=broker)(
        lambda: calls.append(("one", 1))
    )
    for _ in range(3):
        broker.get_actor("small").send("x")
        broker.get_actor("large").send("x")
        one.send()
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()
    broker.join("q", timeout=5000)
    worker.stop()
    broker.close()
    expected = [("large", 3), ("one", 1), ("one", 1), ("one", 1), ("small", 1), ("small", 2)]
    assert sorted(calls) == expected


def test_a_worker_takes_no_more_than_it_was_asked_to(scene: Scene) -> None:
    """dramatiq asks for two calls a thread."""
    names = [str(number) for number in range(100)]
    scene.send(*names, until=str(scene.gates))
    with scene.worker(threads=1):
        scene.until("two batches are read", lambda: in_flight(scene) == 50)
        for _ in range(20):  # a hoarder would go on reading
            assert in_flight(scene) == 50
            time.sleep(0.01)
        scene.open_gate(*names)
        scene.until_empty()
    assert scene.done() == names


def in_flight(scene: Scene) -> int:
    return scene.sender.queue_stats("batch").in_flight


# Outcomes.


def test_the_dead_are_given_to_whoever_wants_them(scene: Scene) -> None:
    buried: list[DeadEntry] = []
    broker = scene.broker(max_deliveries=1, bury=buried.append)
    scene.send("bad", do="fail")
    with scene.worker(broker):
        scene.until("it is dead", lambda: buried)
    (dead,) = buried[:1]
    assert (dead.queue, dead.deliveries, dead.entry is not None) == (KEY, 1, True)
    assert dead.entry is not None
    assert dead.entry.args == ({"name": "bad", "do": "fail"},)
    assert dramatiq.Message.decode(dead.raw).args == dead.entry.args


def test_a_burial_that_fails_stops_nothing(scene: Scene) -> None:
    tries: list[str] = []

    def bury(dead: DeadEntry) -> None:
        tries.append(dead.id)
        raise RuntimeError("a bug")

    scene.add({"message": b"garbage"})
    scene.send("good")
    with scene.worker(scene.broker(bury=bury)):
        scene.until("others run", lambda: scene.done() == ["good"])
        scene.until("it is tried again", lambda: len(tries) > 1)
    assert len(set(tries)) == 1


def encoded(**changed: Any) -> bytes:
    message: dramatiq.Message[Any] = dramatiq.Message("plain", "plain", ("x",), {}, {})
    return dramatiq.Message(**{**message.asdict(), **changed}).encode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"other": b"x"}, "no field 'message'"),
        ({"message": b""}, "no field 'message'"),
        ({"message": b"secret"}, "no JSON"),
        ({"message": b"\xff\xfe"}, "no JSON"),
        ({"message": b"[" * 100_000}, "no JSON"),
        ({"message": b"[1, 2]"}, "it is not an object"),
        ({"message": b'{"args": []}'}, "it has no field 'actor_name'"),
        ({"message": encoded()[:-1] + b', "args": 5}'}, "'args' is not a list"),
        ({"message": encoded(actor_name=["secret"])}, "'actor_name' is not a str"),
        ({"message": encoded(kwargs="secret")}, "'kwargs' is not a dict"),
        ({"message": encoded(options=5)}, "'options' is not a dict"),
        ({"message": encoded(message_id=5)}, "'message_id' is not a str"),
    ],
)
def test_garbage_is_dead_at_once_and_stops_nothing(
    scene: Scene, fields: dict[str, bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    for queue in ("batch", "plain"):
        scene.add(fields, queue)
        scene.send("good", queue=queue)
    with scene.worker(threads=1, queues=["batch", "plain"]):
        scene.until("the good ones ran", lambda: scene.done() == ["good", "good"])
        for queue in ("batch", "plain"):
            scene.until_empty(queue)
    assert {dead["queue"] for dead in scene.dead()} == {"{kbroker}:batch", "{kbroker}:plain"}
    for dead in scene.dead():
        assert dead["message"] == fields.get("message", b"").decode(errors="replace")
        assert re.match(f"not a message: .*({reason})", dead["reason"]), dead["reason"]
    assert "secret" not in caplog.text


# Entries in flight.


def reclaim(queue: StreamQueue) -> list[Delivery]:
    return queue.reclaim(0.0, limit=10, highest=3, dead=3)[0]


def test_a_renewal_or_release_takes_nothing_back(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        ours, theirs = (StreamQueue(client, KEY, name) for name in ("ours", "theirs"))
        ours.create()
        client.xadd(KEY, {"message": b"x"})
        (entry,) = ours.read(1, 0.1)
        assert [d.deliveries for d in reclaim(theirs)] == [2]
        before = client.xpending_range(KEY, LAUNCHERS_GROUP, "-", "+", 10)
        for step in (ours.renew, ours.release, ours.later):
            step([entry.id])
        after = client.xpending_range(KEY, LAUNCHERS_GROUP, "-", "+", 10)
        assert [(e["consumer"], e["times_delivered"]) for e in after] == [(b"theirs", 2)]
        assert after[0]["time_since_delivered"] >= before[0]["time_since_delivered"]


def test_an_entry_deleted_in_flight_is_forgotten(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        ours, theirs = (StreamQueue(client, KEY, name) for name in ("ours", "theirs"))
        ours.create()
        client.xdel(KEY, client.xadd(KEY, {"message": b"x"}), client.xadd(KEY, {"message": b"y"}))
        client.xadd(KEY, {"message": b"z"})
        (entry,) = ours.read(9, 0.1)
        client.xdel(KEY, entry.id)
        assert reclaim(theirs) == []
        assert client.xpending(KEY, LAUNCHERS_GROUP)["pending"] == 0


def test_a_paused_queue_keeps_what_it_works_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dramatiq makes a new consumer after a pause; the calls of the old one go on."""
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    with scene.worker(threads=2, queues=["batch"]) as worker:
        consumer = worker.consumers["batch"]
        scene.send("long", until=str(scene.gates))
        scene.until("it runs", scene.started)
        scene.process(1)  # would take it over after one second of silence
        for thread in worker.consumers.values():
            thread.pause()
        scene.until("the consumer is paused", consumer.paused_event.is_set)
        old = consumer.consumer
        for thread in worker.consumers.values():
            thread.resume()
        scene.until("there is a new one", lambda: consumer.consumer is not old)
        time.sleep(2.2 * REDELIVERED_AFTER)
        scene.open_gate("long")
        scene.until_empty()
    assert scene.started() == ["long"]


def test_a_pause_changes_no_share(scene: Scene) -> None:
    """A call that began before a pause frees no second place after it."""
    scene.send("a", until=str(scene.gates))
    with scene.worker(threads=1, queues=["batch"]) as worker:
        scene.until("it runs", scene.started)
        thread = worker.consumers["batch"]
        old = thread.consumer
        assert old is not None
        new = scene.sender.consume("batch", prefetch=1, timeout=50)
        old.close()
        thread.consumer = new  # what dramatiq does when it restarts a consumer
        scene.open_gate("a")
        scene.until_empty()
        scene.send(*[f"b{n}" for n in range(60)])
        scene.until("one call is handed out", lambda: next(new))
        assert next(new) is None  # one call is unfinished, and one is its share
        new.close()


# Inspection and housekeeping.


def test_stats_tell_waiting_from_worked_on(scene: Scene) -> None:
    def stats() -> tuple[int, int, int, int]:
        now = scene.sender.queue_stats("batch")
        return now.length, now.waiting, now.in_flight, now.consumers

    names = [str(number) for number in range(60)]
    assert stats() == (0, 0, 0, 0)
    scene.send(*names, until=str(scene.gates))
    assert stats() == (60, 60, 0, 0)
    with scene.worker(threads=1, queues=["batch"]):
        scene.until("two calls are handed out", lambda: stats() == (60, 10, 50, 1))
        time.sleep(0.1)
        assert 90 <= scene.sender.queue_stats("batch").oldest_idle_ms < 10_000
        scene.open_gate(*names)
        scene.until_empty()
    assert stats() == (0, 0, 0, 0)


def test_what_was_given_back_waits(redis_url: str) -> None:
    broker = StreamsBroker(redis_url)
    broker.declare_queue("batch")
    queue = StreamQueue(broker.client, KEY, "c")
    queue.create()
    broker.client.xadd(KEY, {"message": b"x"})
    queue.release(delivery.id for delivery in queue.read(1, 0.1))
    stats = broker.queue_stats("batch")
    assert (stats.length, stats.waiting, stats.in_flight, stats.oldest_idle_ms) == (1, 1, 0, 0)
    broker.close()


def test_consumers_leave_unless_they_hold_something(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        queues = {name: StreamQueue(client, KEY, name) for name in ("idle", "holds", "closing")}
        queues["idle"].create()
        client.xadd(KEY, {"message": b"x"})
        queues["holds"].read(1, 0.01)
        queues["idle"].read(1, 0.01)
        queues["closing"].read(1, 0.01)

        def names() -> set[bytes]:
            return {info["name"] for info in client.xinfo_consumers(KEY, LAUNCHERS_GROUP)}

        queues["closing"].retire(closing=False)
        assert names() == {b"idle", b"holds", b"closing"}
        queues["closing"].retire(closing=True)
        queues["holds"].retire(closing=True)
        assert names() == {b"idle", b"holds"}
        time.sleep(0.05)
        monkeypatch.setattr("kbroker.stream_queue._FORGET_AFTER_MS", 20)
        queues["holds"].retire(closing=False)
        assert names() == {b"holds"}


def test_an_idle_worker_leaves_redis_alone(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = StreamsBroker(redis_url)
    queues = 4
    for number in range(queues):
        dramatiq.actor(actor_name=f"a{number}", queue_name=f"q{number}", broker=broker)(
            lambda: None
        )
    worker = dramatiq.Worker(broker, worker_timeout=1000, worker_threads=8)
    worker.start()
    time.sleep(0.5)
    before = commands(broker.client)
    time.sleep(3)
    rate = (commands(broker.client) - before - 1) / 3
    worker.stop()
    broker.close()
    with capsys.disabled():
        print(f"\nidle worker with {queues} queues: {rate:.1f} Redis commands a second")
    assert rate <= 1.2 * queues


def commands(client: redis.Redis) -> int:
    """Commands carried out, those within scripts, too."""
    return int(client.info("stats")["total_commands_processed"])
