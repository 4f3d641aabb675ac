"""Who a workload is: Airflow's key, kbroker's task key, and the launch id of one queueing."""

from __future__ import annotations

import re
import uuid
from typing import Any

from kbroker.task import TaskKey

# "executor_callbacks/<dag id>/<run id>/<callback id>": what else a callback says of its DAG.
_CALLBACK_PATH = re.compile(r"executor_callbacks/(?P<dag>[^/]+)/(?P<run>.+)/[^/]+")

_CALLBACK = "callback-"


def task_key(key: Any) -> TaskKey:
    """The task key of an Airflow `TaskInstanceKey`, or of a task instance."""
    return TaskKey(key.dag_id, key.task_id, key.run_id, key.try_number, key.map_index)


def callback_key(workload: Any) -> TaskKey:
    """A task key for an `ExecuteCallback` workload, which has none of its own."""
    found = _CALLBACK_PATH.fullmatch(workload.log_path or "")
    dag_id, run_id = (found["dag"], found["run"]) if found else ("callbacks", "callbacks")
    return TaskKey(dag_id, f"{_CALLBACK}{workload.callback.id}", run_id)


def is_callback(key: TaskKey) -> bool:
    """Whether `callback_key` made it."""
    return key.task_id.startswith(_CALLBACK)


def key_of(key: TaskKey) -> Any:
    """The `TaskInstanceKey` of a task key."""
    from airflow.models.taskinstancekey import TaskInstanceKey  # noqa: PLC0415

    return TaskInstanceKey(key.dag_id, key.task_id, key.run_id, key.try_number, key.map_index)


def new_launch_id() -> str:
    """A launch id for a queueing that Airflow gave none."""
    return str(uuid.uuid4())


def is_launch_id(text: str | None) -> bool:
    """Whether an `external_executor_id` is one of ours, and not of another executor's making.

    Airflow makes UUIDs for us, and so do we; KubernetesExecutor writes its job's number.
    """
    try:
        uuid.UUID(text or "")
    except ValueError:
        return False
    return True
