"""The broker's contract: real worker processes, real deaths, a real Redis."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dramatiq
import pytest
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware

from kbroker.broker import DaemonAsyncIO, StreamsBroker
from kbroker.errors import BrokerUnavailableError
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.queue_entry import QueueEntry
from tests.integration.scene import poll

ROOT = Path(__file__).resolve().parents[2]
KEY = "{kbroker}:work"
DEAD = "{kbroker}:dead"


class Line(NamedTuple):
    """One line of the ledger."""

    event: str
    n: int
    deliveries: int
    size: int
    pid: int


class Bench:
    """A queue, its workers, and what they wrote down."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.path = folder / "ledger"
        self.path.touch()
        self.log = folder / "workers.log"
        self.broker = StreamsBroker(url)
        self.broker.declare_queue("work")
        self.redis = self.broker.client
        self.workers: list[subprocess.Popen[bytes]] = []

    def worker(self, threads: int = 2, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker process, and wait until it reads the queue."""
        before = self.broker.queue_stats("work").consumers
        command = [sys.executable, "-m", "dramatiq", "tests.integration.broker_worker"]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                # Dramatiq sees only after the fork timeout that a worker died while booting.
                [
                    *command,
                    *("--processes", "1", "--threads", str(threads)),
                    *("--worker-fork-timeout", "1000"),
                ],
                env={**os.environ, "REDIS_URL": self.url, "LEDGER": str(self.path), **env},
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.workers.append(process)
        poll(
            "it reads the queue",
            lambda: (
                self.broker.queue_stats("work").consumers > before or process.poll() is not None
            ),
        )
        return process

    def send(self, *orders: dict[str, Any]) -> None:
        """Enqueue orders in one pipeline."""
        self.broker.enqueue_many(
            dramatiq.Message("work", "work", (order,), {}, {}) for order in orders
        )

    def lines(self, event: str) -> list[Line]:
        """What was written down about one kind of event."""
        rows = (line.split() for line in self.path.read_text().splitlines())
        return [Line(r[0], *map(int, r[1:])) for r in rows if r[0] == event]

    def ends(self) -> collections.Counter[int]:
        """Order → how often it was carried out to its end."""
        return collections.Counter(line.n for line in self.lines("end"))

    def until_ended(self, *numbers: int, seconds: float = 15.0) -> None:
        """Wait until these orders, and no others, were carried out once each."""
        wanted = collections.Counter(numbers)
        try:
            poll(f"{len(wanted)} orders end", lambda: len(self.ends()) >= len(wanted), seconds)
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {self.ends()}\n{self.log.read_text()[-3000:]}"
            ) from None
        poll("all is acknowledged", lambda: self.broker.queue_stats("work").length == 0)
        assert self.ends() == wanted

    def stop(self) -> None:
        """Kill every worker."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        self.broker.close()


@pytest.fixture
def bench(redis_url: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(redis_url, tmp_path)
    yield bench
    bench.stop()


def order(n: int, do: str = "work", **more: Any) -> dict[str, Any]:
    return {"n": n, "do": do, **more}


def test_a_message_to_an_idle_worker_runs_at_once_and_alone(bench: Bench) -> None:
    bench.worker()
    for n in range(5):
        bench.send(order(n))
        began = time.monotonic()
        poll("it runs", lambda n=n: n in bench.ends())
        # A reader that polled would need its interval; this one is woken.
        assert time.monotonic() - began < 1.0
    bench.until_ended(*range(5))
    assert {line.size for line in bench.lines("start")} == {1}


def test_batches_form_by_themselves_and_are_shared(bench: Bench) -> None:
    bench.worker(threads=1)
    bench.worker(threads=1)
    bench.send(*(order(n, seconds=0.02) for n in range(500)))
    bench.until_ended(*range(500))
    sizes = [line.size for line in bench.lines("start")]
    assert max(sizes) == 25
    assert sum(size == 25 for size in sizes) > 400
    share = collections.Counter(line.pid for line in bench.lines("end"))
    assert len(share) == 2
    assert min(share.values()) >= 100


def test_what_a_killed_worker_had_in_hand_is_delivered_again_alone(bench: Bench) -> None:
    bench.send(*(order(n, seconds=1.0) for n in range(5)))
    victim = bench.worker(threads=1)
    poll("all are in hand", lambda: len(bench.lines("start")) == 5)
    os.killpg(victim.pid, signal.SIGKILL)
    bench.worker(threads=10)
    bench.until_ended(*range(5))
    again = bench.lines("start")[5:]
    assert {(line.deliveries, line.size) for line in again} == {(2, 1)}
    assert {line.n for line in again} == set(range(5))
    # One ends before the next one starts, in spite of the threads.
    written = [line.split()[0] for line in bench.path.read_text().splitlines()]
    assert written[5:] == ["start", "end"] * 5


def test_a_poison_message_is_dead_the_fourth_time_and_takes_no_neighbour(bench: Bench) -> None:
    bench.send(order(0, "die"), *(order(n) for n in range(1, 8)))
    deaths = 0
    while not bench.redis.xlen(DEAD):
        worker = bench.worker(threads=1)
        poll(
            "it dies, or the message does",
            lambda worker=worker: worker.poll() is not None or bench.redis.xlen(DEAD),
            15,
        )
        deaths += worker.poll() is not None
        assert deaths <= 3
    bench.until_ended(*range(1, 8))
    poison = [line for line in bench.lines("start") if line.n == 0]
    assert [line.deliveries for line in poison] == [1, 2, 3]
    assert [line.size for line in poison] == [8, 1, 1]
    ((_, fields),) = bench.redis.xrange(DEAD)
    assert fields[b"reason"] == b"handed out 3 times, never finished"
    assert b'"do":"die"' in fields[b"message"]


def test_work_in_progress_is_renewed(bench: Bench) -> None:
    bench.worker(threads=1)
    bench.send(order(0, seconds=3.5))
    poll("it runs", lambda: bench.lines("start"))
    bench.worker(threads=1)  # would take it over after one second of silence
    bench.until_ended(0)
    assert len(bench.lines("start")) == 1


def test_a_paused_worker_loses_its_work_and_does_no_harm_when_it_wakes(bench: Bench) -> None:
    paused = bench.worker(threads=1)
    bench.send(order(0, seconds=0.3))
    poll("it runs", lambda: bench.lines("start"))
    os.killpg(paused.pid, signal.SIGSTOP)
    bench.worker(threads=1)
    poll("another one does it", lambda: bench.ends()[0] == 1)
    os.killpg(paused.pid, signal.SIGCONT)
    poll("the first one ends too", lambda: bench.ends()[0] == 2)
    bench.send(order(1))
    poll("both go on", lambda: bench.ends()[1] == 1)
    poll("nothing is left", lambda: bench.broker.queue_stats("work").length == 0)


def test_an_exception_leaves_the_message_to_be_delivered_again(bench: Bench) -> None:
    bench.worker(threads=1)
    bench.send(order(0, "raise"))
    poll("it is dead", lambda: bench.redis.xlen(DEAD) == 1, 15)
    assert [line.deliveries for line in bench.lines("start")] == [1, 2, 3]


def test_unfinished_entries_of_a_batch(bench: Bench) -> None:
    bench.worker(threads=1)
    bench.send(order(0), order(1, "retry"), order(2, "later"), order(3))
    poll("the retried one ends", lambda: bench.ends()[1] == 1)
    poll("the left one comes back", lambda: len([x for x in bench.lines("start") if x.n == 2]) >= 3)
    assert bench.ends() == {0: 1, 1: 1, 3: 1}
    starts = {n: [x.deliveries for x in bench.lines("start") if x.n == n] for n in range(4)}
    assert starts[0] == starts[3] == [1]
    assert starts[1] == [1, 2]
    assert set(starts[2]) == {1}  # being left does not count
    assert bench.redis.xlen(DEAD) == 0


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(bench: Bench) -> None:
    first = bench.worker(threads=1)
    # One call runs, a second one is fetched already.
    bench.send(order(0, seconds=2.0))
    poll("it runs", lambda: bench.lines("start"))
    bench.send(order(1))
    poll("it is fetched", lambda: bench.broker.queue_stats("work").in_flight == 2)
    bench.send(order(2))
    first.send_signal(signal.SIGTERM)
    first.wait(15)
    assert bench.ends() == {0: 1}
    bench.worker(threads=1)
    bench.until_ended(0, 1, 2)
    assert {line.deliveries for line in bench.lines("end")} == {1}


@pytest.mark.parametrize("loss", ["restarted with data", "restarted empty", "flushed"])
def test_a_living_worker_survives_what_happens_to_redis(tmp_path: Path, loss: str) -> None:
    with EmbeddedRedis() as server:
        bench = Bench(server.url, tmp_path)
        try:
            bench.worker()
            bench.send(order(0))
            poll("it works", lambda: bench.ends()[0] == 1)
            if loss == "flushed":
                bench.redis.flushall()
            else:
                server.restart(keep_data=loss == "restarted with data")
            poll("Redis is back", lambda: _enqueued(bench, order(1)))
            poll("it goes on", lambda: bench.ends()[1] == 1)
        finally:
            bench.stop()


def _enqueued(bench: Bench, what: dict[str, Any]) -> bool:
    try:
        bench.send(what)
    except dramatiq.errors.ConnectionClosed:
        return False
    return True


def test_garbage_is_buried_and_stops_nothing(bench: Bench) -> None:
    bench.worker()
    bench.redis.xadd(KEY, {"message": "{not json"})
    bench.redis.xadd(KEY, {"other": "field"})
    bench.redis.xadd(KEY, {"message": '{"queue_name": "work"}'})
    bench.send(order(0))
    bench.until_ended(0)
    reasons = [fields[b"reason"] for _, fields in bench.redis.xrange(DEAD)]
    assert len(reasons) == 3
    assert all(reason.startswith(b"not a message") for reason in reasons)


def test_a_message_for_an_unknown_actor_is_left_to_others(bench: Bench) -> None:
    stranger = bench.worker(ACTOR="")
    bench.send(order(0))
    time.sleep(4.5)  # long enough for four deliveries, had they counted
    assert bench.redis.xlen(DEAD) == 0
    assert stranger.poll() is None
    stranger.send_signal(signal.SIGTERM)
    stranger.wait(15)
    bench.worker()
    bench.until_ended(0)
    assert bench.log.read_text().count("no actor 'work' in this process") == 1


# dramatiq's own contract, for actors that know nothing of batches.


class Hooks(Middleware):
    """Writes down what dramatiq tells middleware."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_enqueue(self, *_: Any) -> None:
        self.seen.append("before_enqueue")

    def after_enqueue(self, *_: Any) -> None:
        self.seen.append("after_enqueue")

    def before_process_message(self, *_: Any) -> None:
        self.seen.append("before_process_message")

    def after_ack(self, *_: Any) -> None:
        self.seen.append("after_ack")

    def after_nack(self, *_: Any) -> None:
        self.seen.append("after_nack")


class Rejecting(Middleware):
    """Rejects every message."""

    def before_process_message(self, _broker: Any, message: Any) -> None:
        message.fail()


@pytest.fixture
def plain(redis_url: str) -> Iterator[tuple[StreamsBroker, Hooks]]:
    broker = StreamsBroker(redis_url, redelivery_after=1.0)
    hooks = Hooks()
    broker.add_middleware(hooks)
    yield broker, hooks
    broker.close()


def test_ordinary_actors(plain: tuple[StreamsBroker, Hooks]) -> None:
    broker, hooks = plain
    done: list[Any] = []

    def add(a: int, b: int = 1) -> None:
        done.append(a + b)

    async def add_async(a: int) -> None:
        done.append(-a)

    actor = dramatiq.actor(add, broker=broker, queue_name="plain")
    other = dramatiq.actor(add_async, broker=broker, queue_name="plain")
    worker = dramatiq.Worker(broker, worker_threads=2)
    worker.start()
    try:
        actor.send(1, b=2)
        other.send(5)
        broker.join("plain", timeout=5000)
        worker.join()
        assert sorted(done) == [-5, 3]
        assert collections.Counter(hooks.seen) == {
            "before_enqueue": 2,
            "after_enqueue": 2,
            "before_process_message": 2,
            "after_ack": 2,
        }
    finally:
        worker.stop()


def test_a_rejected_message_goes_to_the_dead_stream(plain: tuple[StreamsBroker, Hooks]) -> None:
    broker, hooks = plain
    broker.add_middleware(Rejecting())
    actor = dramatiq.actor(lambda: None, actor_name="noop", broker=broker, queue_name="plain")
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    try:
        actor.send()
        poll("it is dead", lambda: broker.client.xlen(DEAD) == 1)
        broker.join("plain", timeout=5000)
        assert "after_nack" in hooks.seen
    finally:
        worker.stop()


def test_what_is_refused(plain: tuple[StreamsBroker, Hooks]) -> None:
    broker, _ = plain
    broker.declare_queue("plain")
    message = dramatiq.Message("plain", "noop", (), {}, {})
    with pytest.raises(ValueError, match="cannot be delayed"):
        broker.enqueue(message, delay=1000)
    with pytest.raises(QueueNotFound):
        broker.enqueue(message.copy(queue_name="nowhere"))
    with pytest.raises(QueueNotFound):
        broker.consume("nowhere")
    with pytest.raises(QueueNotFound):
        broker.join("nowhere")
    broker.enqueue(message)
    with pytest.raises(QueueJoinTimeout):
        broker.join("plain", timeout=50)
    stats = broker.queue_stats("plain")
    assert (stats.length, stats.waiting, stats.in_flight) == (1, 1, 0)
    broker.flush_all()
    broker.join("plain", timeout=50)


def test_redis_away_is_dramatiqs_own_error(unused_port: int) -> None:
    broker = StreamsBroker(f"redis://127.0.0.1:{unused_port}/0")
    broker.declare_queue("plain")
    with pytest.raises(dramatiq.errors.ConnectionClosed):
        broker.enqueue(dramatiq.Message("plain", "noop", (), {}, {}))
    with pytest.raises(BrokerUnavailableError):
        broker.queue_stats("plain")


def test_the_event_loop_keeps_no_dying_process_alive() -> None:
    assert any(isinstance(m, DaemonAsyncIO) for m in StreamsBroker("redis://x").middleware)


def test_entries_show_no_commands() -> None:
    entry = QueueEntry("1-1", "q", "launch", ({"command": ["secret"]},), {}, 1, b"secret")
    assert "secret" not in repr(entry)
