"""Airflow's names for the states of tasks and callbacks."""

from __future__ import annotations

from typing import Any

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState


def state_of(key: Any, state: str) -> Any:
    """The state of what this key names: "queued", "running", "success" or "failed"."""
    if isinstance(key, TaskInstanceKey):
        return TaskInstanceState(state)
    from airflow.utils.state import CallbackState  # noqa: PLC0415 - not before Airflow 3.2

    return CallbackState(state)
