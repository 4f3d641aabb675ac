"""A worker process for the broker's tests: actors that do what a message tells them.

`python -m dramatiq tests.integration.broker_workers.actors` runs it as users do;
`python -m tests.integration.broker_workers.actors` runs one worker in one process,
which a test can kill, stop and continue by its pid.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dramatiq

from kbroker.broker import StreamsBroker
from kbroker.queue_entry import QueueEntry, Unfinished

URL = "BROKER_TEST_URL"
LEDGER = "BROKER_TEST_LEDGER"
REDELIVERY_AFTER = "BROKER_TEST_REDELIVERY_AFTER"


class Ledger:
    """What the actors of all workers did, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def note(self, what: str, **more: Any) -> None:
        """Append a line; lines this short are appended atomically."""
        line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **more}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def lines(self, what: str) -> list[dict[str, Any]]:
        """The lines of one kind, in order."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def calls(self) -> list[dict[str, int]]:
        """Each call of the batch actor: name → delivery."""
        return [line["entries"] for line in self.lines("call")]


def declare(broker: dramatiq.Broker, ledger: Ledger) -> None:
    """Declare the actors.

    A message of the batch actors is a dict with its name, and `do`: "kill" (this
    process), "fail", "retry", "later", or a number of seconds to work for. A folder as
    `until` makes it work until a file of its name is there.
    """

    def work(name: str, do: str | float = 0.0, until: str = "") -> str:
        ledger.note("start", name=name)
        if do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(do, float | int):
            time.sleep(do)
        while until and not (Path(until) / name).exists():
            time.sleep(0.01)
        if do == "fail":
            raise RuntimeError(name)
        ledger.note("done", name=name)
        return do if isinstance(do, str) else ""

    def batch(entries: list[QueueEntry]) -> None:
        ledger.note("call", entries={e.args[0]["name"]: e.deliveries for e in entries})
        asked = {entry.id: work(**entry.args[0]) for entry in entries}
        left = {what: {i for i, do in asked.items() if do == what} for what in ("retry", "later")}
        if any(left.values()):
            raise Unfinished(**left)

    def plain(name: str, *, do: str | float = 0.0, until: str = "") -> None:
        work(name, do, until)

    async def later_on(name: str) -> None:
        await asyncio.sleep(0)
        ledger.note("done", name=name)

    options: dict[str, Any] = {"broker": broker}
    dramatiq.actor(actor_name="batch", queue_name="batch", batch_size=25, **options)(batch)
    dramatiq.actor(actor_name="other", queue_name="other", batch_size=25, **options)(batch)
    dramatiq.actor(actor_name="plain", queue_name="plain", **options)(plain)
    dramatiq.actor(actor_name="later_on", queue_name="plain", **options)(later_on)


def main() -> None:
    """Run one worker until SIGTERM; its threads are the first argument."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    queues = set(sys.argv[2:]) or None
    worker = dramatiq.Worker(
        broker, queues=queues, worker_timeout=100, worker_threads=int(sys.argv[1])
    )
    worker.start()
    print("ready", flush=True)
    stopped.wait()
    worker.stop()
    broker.close()


if URL in os.environ:
    broker = StreamsBroker(
        os.environ[URL], redelivery_after=float(os.environ[REDELIVERY_AFTER]), block=0.5
    )
    dramatiq.set_broker(broker)
    declare(broker, Ledger(Path(os.environ[LEDGER])))

if __name__ == "__main__":
    main()
