"""A queue, its workers, in this process or in their own, and what they did."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import redis

from kbroker.broker import StreamsBroker
from tests.integration.broker_workers.actors import LEDGER, REDELIVERY_AFTER, URL, Ledger, declare

ROOT = Path(__file__).resolve().parents[2]
REDELIVERED_AFTER = 1.0


class WorkerProcess:
    """One worker in a process of its own."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *argv],
                env=env,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, seconds: float = 10.0) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.popen.wait(seconds)

    def clean_up(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)


class Scene:
    """One Redis, one ledger, any number of workers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.gates = folder / "gates"
        self.gates.mkdir()
        self.ledger = Ledger(folder / "ledger")
        self.redis = redis.Redis.from_url(url)
        self._stack = contextlib.ExitStack()
        self._processes = 0
        self.sender = self.broker()

    def close(self) -> None:
        self._stack.close()
        self.redis.close()

    # Brokers and workers.

    def broker(self, *, actors: bool = True, **options: Any) -> StreamsBroker:
        """A broker, with the actors of `broker_workers.actors` or none."""
        options = {"redelivery_after": REDELIVERED_AFTER, "block": 0.2, **options}
        broker = StreamsBroker(self.url, **options)
        self._stack.callback(broker.close)
        if actors:
            declare(broker, self.ledger)
        return broker

    @contextlib.contextmanager
    def worker(
        self,
        broker: StreamsBroker | None = None,
        threads: int = 2,
        queues: Iterable[str] = (),
    ) -> Iterator[dramatiq.Worker]:
        """A worker in this process."""
        worker = dramatiq.Worker(
            broker or self.sender,
            queues=set(queues) or None,
            worker_timeout=100,
            worker_threads=threads,
        )
        worker.start()
        try:
            yield worker
        finally:
            worker.stop(timeout=10_000)

    def process(self, threads: int = 2, *queues: str) -> WorkerProcess:
        """A worker in its own process, which is up."""
        module = "tests.integration.broker_workers.actors"
        process = self.start(module, str(threads), *queues)
        self.until("the worker is up", lambda: b"ready" in process.log.read_bytes())
        return process

    def start(self, *argv: str) -> WorkerProcess:
        """Any Python module with the environment of a worker."""
        self._processes += 1
        env = {
            **os.environ,
            URL: self.url,
            LEDGER: str(self.ledger.path),
            REDELIVERY_AFTER: str(REDELIVERED_AFTER),
        }
        process = WorkerProcess(list(argv), env, self.folder / f"worker-{self._processes}.log")
        self._stack.callback(process.clean_up)
        return process

    # Messages.

    def send(self, *names: str, queue: str = "batch", together: bool = False, **what: Any) -> None:
        """One message for each name, in one pipeline; `together`: a worker sees all or none."""
        actor = self.sender.get_actor(queue)
        if queue == "plain":
            messages = [actor.message(name, **what) for name in names]
        else:
            messages = [actor.message({"name": name, **what}) for name in names]
        if not together:
            self.sender.enqueue_many(messages)
            return
        pipe = self.redis.pipeline(transaction=True)
        for message in messages:
            pipe.xadd(f"{{kbroker}}:{queue}", {"message": message.encode()})
        pipe.execute()

    def add(self, fields: dict[str, bytes], queue: str = "batch") -> str:
        """An entry as it is; its id."""
        entry: bytes = self.redis.xadd(f"{{kbroker}}:{queue}", fields)
        return entry.decode()

    def open_gate(self, *names: str) -> None:
        """Let what waits with `until=gates` go on."""
        for name in names:
            (self.gates / name).touch()

    # What happened.

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """The condition's value once it is true."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                logs = "\n".join(p.read_text() for p in sorted(self.folder.glob("worker-*.log")))
                text = self.ledger.path.read_text()
                raise AssertionError(f"not within {seconds} s: {what}\n{text}\n{logs}")
            time.sleep(0.005)

    def done(self) -> list[str]:
        """Names of the messages worked on to the end, in order."""
        return [line["name"] for line in self.ledger.lines("done")]

    def started(self) -> list[str]:
        """Names of the messages begun, in order."""
        return [line["name"] for line in self.ledger.lines("start")]

    def started_of(self, name: str) -> list[str]:
        """As often as it began."""
        return [started for started in self.started() if started == name]

    def until_empty(self, queue: str = "batch", seconds: float = 10.0) -> None:
        """Wait until a queue holds nothing."""
        self.until(
            f"{queue} is empty", lambda: not self.redis.xlen(f"{{kbroker}}:{queue}"), seconds
        )

    def dead(self) -> list[dict[str, str]]:
        """The dead stream."""
        return [
            {key.decode(): value.decode(errors="replace") for key, value in fields.items()}
            for _, fields in self.redis.xrange("{kbroker}:dead")
        ]
