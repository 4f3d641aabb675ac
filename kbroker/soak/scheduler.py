"""A scheduler in a process of its own: `python -m kbroker.soak.scheduler FOLDER LEDGER SCRATCH`.

It wants what its database asks for, adopts what an earlier life of it published, and writes each
final state to its database before it lets the executor go on, as any scheduler must.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest
from kbroker.soak.database import Database, Ending
from kbroker.soak.ledger import SCRIPT
from kbroker.soak.workload import KINDS, Op, Request
from kbroker.task import TaskKey

_BEAT = 0.05
_ADOPT_EVERY = 0.5
_TELL_EVERY = 0.5
# What was too old before it was wanted.
_TOO_OLD = 1.0
_FINAL = ("success", "failed")


class Scheduler:
    """Drives an executor with what a database asks for.

    Args:
        database: its requests and final states.
        ledger: path of the file that the tasks write.
        scratch: path of a folder that outlives a restart of their containers.
        config: of the executor.
    """

    def __init__(self, database: Database, ledger: str, scratch: str, config: KubeConfig) -> None:
        self._database = database
        self._ledger = ledger
        self._scratch = scratch
        self._life = database.begin_life()
        self._executor = KubernetesExecutor(config)
        self._to_adopt: list[LaunchRequest] = []
        self._adopt_at = 0.0
        self._tell_at = 0.0
        self._slowest = 0.0
        self._leaving = False

    def run(self) -> None:
        """Run until it is asked to leave, and everything that it wanted is over."""
        self._executor.start()
        self._take_over()
        while not (self._leaving and self._idle):
            self._adopt()
            self._beat()
            if not self._to_adopt:  # what is asked for next may be about those
                for request in self._database.asked():
                    self._obey(request)
            self._tell()
            time.sleep(_BEAT)
        self._executor.heartbeat()
        self._executor.end()

    @property
    def _idle(self) -> bool:
        return not (self._executor.running or self._executor.queued_tasks or self._to_adopt)

    def _take_over(self) -> None:
        """What earlier lives were asked for, and what has not ended: the newest of each task."""
        over = {ending.launch for ending in self._database.endings()}
        newest: dict[str, Request] = {}
        for request in self._database.asked():
            if request.op is Op.RUN:
                newest[request.task] = request
            elif request.op is Op.REVOKE:
                newest.pop(request.task, None)
            else:
                self._leaving = True
        wanted = [request for request in newest.values() if request.launch not in over]
        self._to_adopt = [self._launch(request) for request in wanted]

    def _adopt(self) -> None:
        if self._to_adopt and time.monotonic() >= self._adopt_at:
            self._adopt_at = time.monotonic() + _ADOPT_EVERY
            self._to_adopt = self._executor.adopt(self._to_adopt)

    def _obey(self, request: Request) -> None:
        if request.op is Op.LEAVE:
            self._leaving = True
        elif request.op is Op.REVOKE:
            self._executor.revoke(_key(request.task), "revoked in a soak")
        else:
            launch = self._launch(request)
            self._executor.execute_async(
                launch.key,
                launch.command,
                executor_config=launch.executor_config,
                launch_id=launch.launch_id,
                expires_at=launch.expires_at,
            )

    def _beat(self) -> None:
        began = time.monotonic()
        self._executor.heartbeat()
        self._slowest = max(self._slowest, time.monotonic() - began)
        for state, info in self._executor.get_event_buffer().values():
            if state in _FINAL and isinstance(info, Outcome):
                self._database.ended(_ending(self._life, state, info))

    def _tell(self) -> None:
        if time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + _TELL_EVERY
        self._database.tell(
            {
                "life": self._life,
                "running": sorted(key.task_id for key in self._executor.running),
                "seen": self._database.seen,
                "queued": len(self._executor.queued_tasks),
                "adopting": [launch.launch_id for launch in self._to_adopt],
                "slowest_heartbeat": self._slowest,
            }
        )

    def _launch(self, request: Request) -> LaunchRequest:
        kind = KINDS[request.kind]
        env = {
            "LEDGER": self._ledger,
            "SCRATCH": self._scratch,
            "TASK": request.task,
            "LAUNCH": request.launch,
            "DOES": kind.does,
            "TAKES": str(request.takes),
        }
        return LaunchRequest(
            _key(request.task),
            ["sh", "-c", SCRIPT],
            request.launch,
            executor_config={**kind.config, "env": env},
            expires_at=time.time() - _TOO_OLD if kind.expired else None,
        )


def _key(task: str) -> TaskKey:
    return TaskKey("soak", task, "soak")


def _ending(life: int, state: str, outcome: Outcome) -> Ending:
    return Ending(
        life,
        outcome.launch_id,
        state,
        str(outcome.cause or ""),
        outcome.exit_code,
        outcome.attempts,
        outcome.uid or "",
        outcome.message or "",
    )


def main() -> None:
    """Run the scheduler of a folder, with the configuration of the environment."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    folder, ledger, scratch = sys.argv[1:]
    Scheduler(Database(Path(folder)), ledger, scratch, KubeConfig.load()).run()


if __name__ == "__main__":
    main()
