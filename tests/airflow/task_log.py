"""Asks the configured executor for a task's log: DAG, RUN, TASK, TRY; prints it as JSON.

Run in a process with the site's environment.
"""

from __future__ import annotations

import json
import sys

from airflow.executors.executor_loader import ExecutorLoader
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select


def main() -> None:
    """Print [messages, logs]."""
    dag, run, task, try_number = sys.argv[1:]
    with create_session() as session:
        [ti] = session.scalars(
            select(TaskInstance).where(
                TaskInstance.dag_id == dag,
                TaskInstance.run_id == run,
                TaskInstance.task_id == task,
            )
        )
        messages, logs = ExecutorLoader.get_default_executor().get_task_log(ti, int(try_number))
    print(json.dumps([list(messages), list(logs)]))


if __name__ == "__main__":
    main()
