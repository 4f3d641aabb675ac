"""An executor of Airflow's, driven as a scheduler does; run by an interpreter that has Airflow.

`PYTHON airflow_contender.py CLASS COUNT` launches so many tasks, waits until all have ended, and
prints one JSON object in a line of its own, the last one. Configured by AIRFLOW__ variables; what
the class needs has to be installed there.

The tasks are rows of Airflow's database and workloads with tokens, as its scheduler makes them;
they are all queued before the first turn. A turn of the loop is what a scheduler's has of an
executor: its heartbeat and its events. Pods run nothing: their states are played.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

_WITHIN = 150.0
# Between two turns of the scheduler's loop while there is work.
_PAUSE = 0.01
_WARM = 20
_JOB = 1
# All turns of a bench share a database.
_RUN_ID = f"bench-{uuid.uuid4().hex[:8]}"


def main() -> None:
    """Run tasks, and say what it took."""
    module, _, name = sys.argv[1].rpartition(".")
    executor: Any = getattr(importlib.import_module(module), name)()
    executor.job_id = _JOB
    executor.start()
    try:
        # What it imports and connects only when it is needed is not counted.
        _run(executor, "warm", _WARM)
        said = _run(executor, "task", int(sys.argv[2]))
    finally:
        executor.end()
    print(json.dumps(said), flush=True)  # noqa: T201


def _run(executor: Any, name: str, count: int) -> dict[str, float]:
    """Run so many tasks; what that took."""
    workloads = _workloads(executor, name, count)
    turns: list[float] = []
    begun: set[Any] = set()
    ends: dict[Any, str] = {}
    cpu, began = _cpu(), time.monotonic()
    for workload in workloads:
        executor.queue_workload(workload, session=None)

    def turn() -> None:
        if time.monotonic() - began > _WITHIN:
            raise TimeoutError(f"not over within {_WITHIN:g} s")
        before = time.monotonic()
        executor.heartbeat()
        events = executor.get_event_buffer()
        turns.append(time.monotonic() - before)
        # KubernetesExecutor says of a pod that succeeded what the database says of its task, which
        # nobody has begun.
        over = {
            key: str(state) for key, (state, _) in events.items() if key not in executor.running
        }
        ends.update(over)
        begun.update(over, (key for key, (state, _) in events.items() if str(state) == "running"))
        time.sleep(_PAUSE)

    while len(begun) < count:
        turn()
    launched, launching = time.monotonic() - began, len(turns)
    while len(ends) < count:
        turn()
    ended = time.monotonic() - began
    turn()  # what was handed out may go now
    return {
        "launched_s": launched,
        "ended_s": ended,
        "cpu_s": _cpu() - cpu,
        "longest_turn_s": max(turns),
        "median_turn_s": sorted(turns[:launching])[launching // 2],
        "succeeded": sum(state != "failed" for state in ends.values()),
    }


def _workloads(executor: Any, name: str, count: int) -> list[Any]:
    """Queued task instances, as rows and as what the executor is handed."""
    from airflow.executors.workloads import ExecuteTask, TaskInstance  # noqa: PLC0415
    from airflow.models.taskinstance import TaskInstance as Model  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415
    from sqlalchemy import insert, text  # noqa: PLC0415

    rows = [_row(f"{name}-{number:06d}") for number in range(count)]
    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys=OFF"))
        session.execute(insert(Model), rows)
    return [
        ExecuteTask(
            ti=TaskInstance.model_validate(row),
            dag_rel_path="bench.py",
            bundle_info={"name": "dags-folder"},
            log_path=f"bench/{row['task_id']}.log",
            token=ExecuteTask.generate_token(str(row["id"]), executor.jwt_generator),
        )
        for row in rows
    ]


def _row(task: str) -> dict[str, Any]:
    return {
        "id": uuid.uuid4(),
        "dag_id": "bench",
        "task_id": task,
        "run_id": _RUN_ID,
        "map_index": -1,
        "try_number": 1,
        "state": "queued",
        "queued_by_job_id": _JOB,
        "external_executor_id": str(uuid.uuid4()),
        "queued_dttm": datetime.now(UTC),
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "executor_config": {},
        "dag_version_id": uuid.uuid4(),
        "span_status": "not_started",
    }


def _cpu() -> float:
    """User and system seconds of this process: the scheduler's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
