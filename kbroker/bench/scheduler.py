"""A scheduler with an executor, in a process of its own: `python -m kbroker.bench.scheduler`.

It beats, and in between obeys: `prepare` tasks, `submit` them, `take` what was noted, change
`every`.
"""

from __future__ import annotations

import time
from typing import Any

from kbroker.bench import tasks
from kbroker.bench.commands import Command, Commands, answer
from kbroker.event import Outcome
from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest

_EVERY = 0.05
# So many tasks at most are handed over between two heartbeats (Airflow: max_tis_per_query).
_EACH_LOOP = 512


class Scheduler:
    """Drives an executor, and notes what it does and how long that takes.

    Args:
        config: of the executor.
    """

    def __init__(self, config: KubeConfig) -> None:
        self._executor = KubernetesExecutor(config)
        self._commands = Commands()
        self._every = _EVERY
        self._beats: list[float] = []
        self._states: list[tuple[str, str, float]] = []
        self._failed: list[str] = []
        self._wanted: list[LaunchRequest] = []

    def run(self) -> None:
        """Until the commands end."""
        self._executor.start()
        answer({"ready": True})
        due = time.monotonic()
        while not self._commands.ended:
            command = self._commands.next(due - time.monotonic())
            if command is not None:
                answer(self._obey(command))
            if time.monotonic() >= due:
                due = time.monotonic() + self._every
                self._beat()
        self._executor.end()

    def _obey(self, command: Command) -> dict[str, Any]:
        if command["do"] == "prepare":
            # A scheduler has its tasks; to make them up is no part of what is measured.
            numbers = range(command["first"], command["end"])
            self._wanted = [tasks.request(command["group"], number) for number in numbers]
            return {}
        if command["do"] == "submit":
            return self._submit()
        if command["do"] == "every":
            self._every = float(command["seconds"])
            return {}
        noted = {
            "beats": self._beats,
            "states": self._states,
            "failed": self._failed,
            "running": len(self._executor.running),
            "queued": len(self._executor.queued_tasks),
        }
        self._beats, self._states, self._failed = [], [], []
        return noted

    def _submit(self) -> dict[str, Any]:
        """Want the prepared tasks, some with each loop, as a scheduler does."""
        wanted, self._wanted = self._wanted, []
        began = time.monotonic()
        for start in range(0, len(wanted), _EACH_LOOP):
            for task in wanted[start : start + _EACH_LOOP]:
                self._executor.execute_async(task.key, task.command, launch_id=task.launch_id)
            self._beat()
        return {"began": began}

    def _beat(self) -> None:
        began = time.perf_counter()
        self._executor.heartbeat()
        self._beats.append(time.perf_counter() - began)
        states = self._executor.get_event_buffer()
        now = time.monotonic()
        for key, (state, info) in states.items():
            self._states.append((key.task_id, state, now))
            if state == "failed":
                self._failed.append(f"{key.task_id}: {_why(info)}")


def _why(info: str | Outcome) -> str:
    return str(info) if isinstance(info, Outcome) else "no reason"


if __name__ == "__main__":
    Scheduler(KubeConfig.load()).run()
