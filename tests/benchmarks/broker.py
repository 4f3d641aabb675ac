"""What the broker costs: `python -m tests.benchmarks.broker`, or `make bench-broker`.

Prints `name=value` lines, all from one run on one embedded Redis:

- `send_to_run_ms_p50`, `_p99`: from enqueueing to the actor, on an idle worker, and
  `send_to_run_vs_ping`: the median as a multiple of one Redis round trip.
- `noop_us`: one message through a worker that has a full queue, batches of 25, and
  `noop_vs_ping` likewise.
- `idle_redis_ops`: Redis commands a second of one idle launcher's queues
  (three priorities and deletions), as INFO counts them: commands inside scripts too.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import dramatiq

from kbroker.broker import StreamsBroker
from kbroker.local.redis_server import EmbeddedRedis
from kbroker.queue_entry import QueueEntry
from kbroker.redis_client import connect

SENDS = 300
BACKLOG = 5_000
IDLE_SECONDS = 20.0
QUEUES = ("launch.default.high", "launch.default.normal", "launch.default.low", "delete.default")


def main() -> None:
    """Measure and print."""
    with EmbeddedRedis() as server:
        broker = StreamsBroker(server.url)
        dramatiq.set_broker(broker)
        ran: list[float] = []

        async def noop(entries: list[QueueEntry]) -> None:
            ran.extend([time.perf_counter()] * len(entries))
            await asyncio.sleep(0)

        actors = [
            dramatiq.actor(actor_name=queue, queue_name=queue, batch_size=25)(noop)
            for queue in QUEUES
        ]
        worker = dramatiq.Worker(broker, worker_threads=2)
        worker.start()
        time.sleep(1.0)  # the consumers have begun to wait
        client = connect(server.url, 5.0)
        pings = []
        for _ in range(SENDS):
            began = time.perf_counter()
            client.ping()
            pings.append(time.perf_counter() - began)
        ping = statistics.median(pings)

        actor = actors[1]
        waits = []
        for sent in range(1, SENDS + 1):
            began = time.perf_counter()
            actor.send(sent)
            while len(ran) < sent:
                time.sleep(0.0001)
            waits.append(ran[-1] - began)
        waits.sort()
        _say("send_to_run_ms_p50", waits[len(waits) // 2] * 1000)
        _say("send_to_run_ms_p99", waits[int(len(waits) * 0.99)] * 1000)
        _say("send_to_run_vs_ping", waits[len(waits) // 2] / ping)

        worker.pause()
        broker.enqueue_many([actor.message(n) for n in range(BACKLOG)])
        before = len(ran)
        began = time.perf_counter()
        worker.resume()
        broker.join(actor.queue_name, timeout=60_000)
        spent = time.perf_counter() - began
        assert len(ran) - before == BACKLOG
        _say("noop_us", spent / BACKLOG * 1e6)
        _say("noop_vs_ping", spent / BACKLOG / ping)

        commands = int(client.info("stats")["total_commands_processed"])
        time.sleep(IDLE_SECONDS)
        commands = int(client.info("stats")["total_commands_processed"]) - commands - 1
        _say("idle_redis_ops", commands / IDLE_SECONDS)
        worker.stop()
        broker.close()


def _say(name: str, value: float) -> None:
    print(f"{name}={value:.3g}", flush=True)


if __name__ == "__main__":
    main()
