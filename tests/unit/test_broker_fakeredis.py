"""The broker on fakeredis: what it needs of Redis is what every Redis has."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import fakeredis
import pytest

from kbroker.broker import StreamsBroker
from kbroker.errors import BrokerUnavailableError
from kbroker.queue_entry import DeadEntry, QueueEntry, Unfinished
from kbroker.renewer import Holder, Renewer
from kbroker.stream_queue import StreamQueue

QUEUE = "{kbroker}:q"


def process(server: fakeredis.FakeServer, **options: Any) -> StreamsBroker:
    """The broker of one more process."""
    options = {"redelivery_after": 1000.0, "block": 0.01, **options}
    broker = StreamsBroker(client=fakeredis.FakeRedis(server=server), **options)
    dramatiq.actor(actor_name="batch", queue_name="q", batch_size=3, broker=broker)(print)
    dramatiq.actor(actor_name="plain", queue_name="plain", broker=broker)(print)
    return broker


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def broker(server: fakeredis.FakeServer) -> Iterator[StreamsBroker]:
    broker = process(server)
    yield broker
    broker.close()


def send(broker: StreamsBroker, *names: str, actor: str = "batch") -> None:
    broker.enqueue_many([broker.get_actor(actor).message(name) for name in names])


def consumer(broker: StreamsBroker, queue: str = "q") -> Any:
    return broker.consume(queue, prefetch=20, timeout=20)


def handed_out(proxy: Any) -> list[tuple[str, int]]:
    return [(entry.args[0], entry.deliveries) for entry in proxy.entries]


def test_batches_are_handed_out_and_acknowledged(broker: StreamsBroker) -> None:
    send(broker, "a", "b", "c", "d")
    reader = consumer(broker)
    first, second = next(reader), next(reader)
    assert [handed_out(first), handed_out(second)] == [
        [("a", 1), ("b", 1), ("c", 1)],
        [("d", 1)],
    ]
    (entries,) = first.args
    assert all(isinstance(entry, QueueEntry) for entry in entries)
    stats = broker.queue_stats("q")
    assert (stats.length, stats.waiting, stats.in_flight) == (4, 0, 4)
    reader.ack(first)
    reader.ack(second)
    broker.join("q", timeout=100)
    assert broker.queue_stats("q").length == 0


def test_an_ordinary_message_stays_what_it_was(broker: StreamsBroker) -> None:
    sent = broker.get_actor("plain").send("a", key="value")
    reader = consumer(broker, "plain")
    received = next(reader)
    assert (received.message_id, received.args, received.kwargs) == (
        sent.message_id,
        ("a",),
        {"key": "value"},
    )
    reader.ack(received)
    assert broker.queue_stats("plain").length == 0


def abandoned(broker: StreamsBroker, *names: str, deliveries: int) -> None:
    """Messages that a process was handed as often, and that died long ago."""
    send(broker, *names)
    reader = StreamQueue(broker.client, QUEUE, "gone")
    ids = [delivery.id for delivery in reader.read(100, 0.01)]
    broker.client.xclaim(
        QUEUE, "launchers", "gone", 0, ids, idle=10**7, retrycount=deliveries, justid=True
    )


def test_a_second_delivery_is_handed_out_alone(broker: StreamsBroker) -> None:
    abandoned(broker, "a", "b", deliveries=1)
    send(broker, "new")
    reader = consumer(broker)
    for name in ("a", "b"):
        again = until_not_none(reader)
        assert handed_out(again) == [(name, 2)]
        assert next(reader) is None
        reader.ack(again)
    assert handed_out(until_not_none(reader)) == [("new", 1)]
    assert next(reader) is None


def test_what_is_new_does_not_wait_for_all_that_is_taken_over(broker: StreamsBroker) -> None:
    abandoned(broker, *[f"x{n}" for n in range(90)], deliveries=0)
    send(broker, "new")
    reader = broker.consume("q", prefetch=100, timeout=20)
    names = [name for _ in range(33) for name, _ in handed_out(until_not_none(reader))]
    assert "new" in names[25:29]
    assert sorted(names) == sorted(["new", *[f"x{n}" for n in range(90)]])


def test_a_process_gives_one_last_chance_at_a_time(broker: StreamsBroker) -> None:
    """Beside a message that kills the process, no other may use up its own."""
    abandoned(broker, "a", "b", deliveries=2)
    first, second = consumer(broker), consumer(broker)
    last = next(first)
    assert handed_out(last) == [("a", 3)]
    assert next(first) is None
    assert next(second) is None
    last.stuff_exception(RuntimeError())
    first.ack(last)
    assert handed_out(until_not_none(first)) == [("b", 3)]


def until_not_none(reader: Any) -> Any:
    """The next call, for which a consumer may have to be asked more than once."""
    return next(call for call in itertools.islice(reader, 100) if call is not None)


def test_a_last_chance_given_back_is_one_for_others(broker: StreamsBroker) -> None:
    abandoned(broker, "a", deliveries=2)
    stopping = consumer(broker)
    stopping.requeue([next(stopping)])
    assert handed_out(next(consumer(broker))) == [("a", 3)]


def test_the_fourth_delivery_is_a_burial(broker: StreamsBroker) -> None:
    buried: list[DeadEntry] = []
    broker.bury = buried.append
    abandoned(broker, "a", "b", deliveries=3)
    send(broker, "c")
    assert handed_out(next(consumer(broker))) == [("c", 1)]
    assert [(dead.entry.args, dead.deliveries) for dead in buried if dead.entry] == [
        (("a",), 3),
        (("b",), 3),
    ]
    assert {dead.reason for dead in buried} == {"handed out 3 times, never finished"}


@pytest.mark.parametrize(
    ("raised", "left"),
    [
        (lambda ids: None, {}),
        (lambda ids: RuntimeError(), {"a": 1, "b": 1, "c": 1}),
        (lambda ids: Unfinished(retry={ids[0]}), {"a": 1}),
        (lambda _ids: BrokerUnavailableError("Redis refuses: OOM"), {"a": 0, "b": 0, "c": 0}),
        (lambda ids: Unfinished(later={ids[1]}), {"b": 0}),
        (lambda ids: Unfinished(retry={ids[0]}, later={ids[1], "1-1"}), {"a": 1, "b": 0}),
        (lambda ids: KeyboardInterrupt(), {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_only_what_is_done_leaves_the_queue(
    broker: StreamsBroker, raised: Any, left: dict[str, int]
) -> None:
    send(broker, "a", "b", "c")
    reader = consumer(broker)
    proxy = next(reader)
    names = {entry.id: entry.args[0] for entry in proxy.entries}
    error = raised(proxy.ids)
    if error is not None:
        proxy.stuff_exception(error)
    reader.ack(proxy)
    pending = broker.client.xpending_range(QUEUE, "launchers", "-", "+", 10)
    found = {names[p["message_id"].decode()]: p["times_delivered"] for p in pending}
    assert found == left
    assert broker.queue_stats("q").length == len(left)


def test_what_was_not_begun_is_given_back_and_may_be_batched(broker: StreamsBroker) -> None:
    send(broker, "a", "b", "c")
    stopping = consumer(broker)
    proxy = next(stopping)
    stopping.requeue([proxy])
    stopping.close()
    stats = broker.queue_stats("q")
    assert (stats.waiting, stats.in_flight) == (3, 0)
    assert handed_out(next(consumer(broker))) == [("a", 1), ("b", 1), ("c", 1)]


def test_the_group_comes_back_after_flushall(broker: StreamsBroker) -> None:
    reader = consumer(broker)
    assert next(reader) is None
    broker.client.flushall()
    send(broker, "a")
    assert handed_out(next(reader)) == [("a", 1)]


def test_garbage_goes_to_the_dead_stream(broker: StreamsBroker) -> None:
    broker.client.xadd(QUEUE, {"message": "{"})
    reader = consumer(broker)
    assert next(reader) is None
    ((_, dead),) = broker.client.xrange("{kbroker}:dead")
    assert (dead[b"reason"], dead[b"queue"], dead[b"message"]) == (
        b"not a message: no JSON",
        QUEUE.encode(),
        b"{",
    )
    assert broker.queue_stats("q").length == 0


class Slow(Holder):
    """A consumer that is asked about itself while others arrive."""

    key = QUEUE

    def __init__(self) -> None:
        self.renewed = threading.Event()

    @property
    def over(self) -> bool:
        time.sleep(0.001)
        return False

    def renew(self) -> None:
        self.renewed.set()
        raise RuntimeError("a bug")


def test_consumers_that_come_at_once_are_all_renewed_whatever_fails() -> None:
    """dramatiq starts the consumers of all queues at the same time."""
    renewer = Renewer(0.01)
    holders = [Slow() for _ in range(16)]
    threads = [threading.Thread(target=renewer.watch, args=(holder,)) for holder in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        for holder in holders:
            assert holder.renewed.wait(10)
            holder.renewed.clear()
    renewer.stop()
