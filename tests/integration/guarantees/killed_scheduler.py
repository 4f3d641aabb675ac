"""Schedulers whose executor kills their own process: `python -m … <databases> <ledger> <name>…`.

Each name is `<step>.<life>`. A process of its own runs one task until that step. With
`--adopt` in front of the names, each process is the next life of its scheduler: it adopts
what its database has no final state of, under the same executor id or another one.

A database is a file with lines `<moment> <launch id> <state>`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest
from kbroker.task import TaskKey
from tests.integration.stack import LEDGER_TASK

STEPS = (
    "read",  # the final event was read from the stream
    "buffered",  # it stands in the event buffer
    "handed-out",  # get_event_buffer has returned it, the database has not got it
    "stored",  # the database has it
    "finish-sent",  # the record is closed and the removal asked for, the reply is lost
    "finished",  # the reply has come
)
IN_TIME = 60.0


def die() -> NoReturn:
    """As a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class DyingExecutor(KubernetesExecutor):
    """Kills its process at one step."""

    def __init__(self, config: KubeConfig, step: str) -> None:
        super().__init__(config)
        self._step = step
        finish = self.scheduler.finish

        def finish_and_die(launches: Iterable[Any]) -> list[str]:
            wanted = list(launches)
            replies = finish(wanted)
            if wanted and step == "finish-sent":
                die()
            return replies

        self.scheduler.finish = finish_and_die  # type: ignore[method-assign]
        take = self._intake.take

        def die_or_take(tracked: Any, event: Any) -> None:
            if event.final and step == "read":
                die()
            take(tracked, event)

        self._intake.take = die_or_take  # type: ignore[method-assign]

    def _change_state(self, key: TaskKey, state: str, info: Any) -> None:
        super()._change_state(key, state, info)
        if self._step == "buffered":
            die()

    def _finish(self) -> None:
        over = bool(self._departures._over)
        super()._finish()
        if over and self._step == "finished":
            die()


@dataclass
class Scheduler:
    """One task, and the file that is its database."""

    name: str
    database: Path
    ledger: str

    @property
    def request(self) -> LaunchRequest:
        """Its launch."""
        command = ["sh", "-c", LEDGER_TASK, self.name, self.ledger, "0.1"]
        return LaunchRequest(TaskKey("dag", self.name, "run"), command, f"launch-{self.name}")

    def config(self, suffix: str = "") -> KubeConfig:
        """The stack's, with an executor id of its own."""
        base = KubeConfig.load()
        values = {n: v for n, v in base.values().items() if base.source(n) != "default"}
        return KubeConfig.from_values(**{**values, "core.executor_id": self.name + suffix})

    def live(self, step: str) -> None:
        """Run the task until this step."""
        executor = DyingExecutor(self.config(), step)
        executor.start()
        request = self.request
        executor.execute_async(request.key, request.command, launch_id=request.launch_id)
        self._drive(
            executor,
            on_heard=die if step == "handed-out" else lambda: None,
            on_stored=die if step == "stored" else lambda: None,
            until=lambda: False,
        )

    def live_again(self, suffix: str) -> None:
        """Adopt what has no final state; go on until there is one."""
        executor = KubernetesExecutor(self.config(suffix))
        executor.start()
        if not self.database.exists():
            deadline = time.monotonic() + IN_TIME
            while executor.adopt([self.request]):  # until the lease of the dead one has ended
                assert time.monotonic() < deadline
                time.sleep(0.05)
        self._drive(executor, lambda: None, lambda: None, until=self.database.exists)
        for _ in range(3):
            executor.heartbeat()
        executor.end()

    def _drive(
        self,
        executor: KubernetesExecutor,
        on_heard: Callable[[], None],
        on_stored: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        deadline = time.monotonic() + IN_TIME
        while not until():
            assert time.monotonic() < deadline
            executor.heartbeat()
            for state, info in executor.get_event_buffer().values():
                if state in ("success", "failed"):
                    on_heard()
                    with self.database.open("a") as out:
                        out.write(f"{time.time():.3f} {info.launch_id} {state}\n")
                    on_stored()
            time.sleep(0.02)


def main(folder: str, ledger: str, *names: str) -> int:
    """Fork one scheduler for each name `<step>.<life>`; how many did not end as they should."""
    lives = []
    again = names[0] == "--adopt"
    for name in names[again:]:
        step, _, life = name.partition(".")
        scheduler = Scheduler(name, Path(folder) / name, ledger)
        child = os.fork()
        if not child:
            suffix = "-b" if life == "another" else ""
            scheduler.live_again(suffix) if again else scheduler.live(step)
            os._exit(0)
        lives.append(child)
    expected = 0 if again else -signal.SIGKILL
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in lives]
    return sum(end != expected for end in ends)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
