"""Airflow's KubernetesExecutor, driven as a scheduler does; run by an interpreter that has Airflow.

`PYTHON airflow_contender.py COUNT` launches so many tasks, waits until all have ended, and prints
one JSON object in a line of its own, the last one. It stands alone: that interpreter knows nothing
of kbroker. Configured by AIRFLOW__ variables.

Tasks are handed over as the command lines that the executor has always taken, so that it does
not look each of them up in Airflow's database before it creates the pod: what is measured is less
than a scheduler pays.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

_WITHIN = 120.0
# Between two turns of the scheduler's loop while there is work.
_PAUSE = 0.01
_WARM = 20


def main() -> None:
    """Run tasks, and say what it took."""
    from airflow.models.taskinstancekey import TaskInstanceKey  # noqa: PLC0415
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import (  # noqa: PLC0415
        KubernetesExecutor,
    )

    executor: Any = KubernetesExecutor()
    executor.job_id = 1
    executor.start()
    try:
        # What it imports and connects only when it is needed is not counted.
        _run(
            executor, [TaskInstanceKey("bench", f"warm-{n}", "bench", 1, -1) for n in range(_WARM)]
        )
        count = int(sys.argv[1])
        said = _run(
            executor,
            [TaskInstanceKey("bench", f"task-{n:06d}", "bench", 1, -1) for n in range(count)],
        )
    finally:
        executor.end()
    print(json.dumps(said), flush=True)  # noqa: T201


def _run(executor: Any, keys: list[Any]) -> dict[str, float]:
    """Run these tasks; what that took."""
    executor.event_buffer.clear()
    beats: list[float] = []
    cpu, began = _cpu(), time.monotonic()
    for key in keys:
        executor.running.add(key)
        executor.execute_async(key, ["airflow", "tasks", "run", *key[:3]])
    _beat(executor, beats, executor.task_queue.empty, began)
    launched = time.monotonic() - began
    _beat(executor, beats, lambda: not executor.running, began)
    return {
        "launched_s": launched,
        "ended_s": time.monotonic() - began,
        "cpu_s": _cpu() - cpu,
        "longest_beat_s": max(beats),
        # It looks the state of a pod that succeeded up in the database, which knows no such task.
        "succeeded": sum(state is None for state, _ in executor.event_buffer.values()),
    }


def _beat(executor: Any, beats: list[float], over: Any, began: float) -> None:
    while not over():
        if time.monotonic() - began > _WITHIN:
            raise TimeoutError(f"not over within {_WITHIN:g} s")
        before = time.monotonic()
        executor.heartbeat()
        beats.append(time.monotonic() - before)
        time.sleep(_PAUSE)


def _cpu() -> float:
    """User and system seconds of this process: the scheduler's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
