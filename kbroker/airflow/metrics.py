"""Airflow's metrics, under the names that KubernetesExecutor uses where they mean the same."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

# Where Airflow 3.3, 3.2 and 3.1 have them.
_HOMES = ("airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")


def _stats() -> Any:
    for home in _HOMES:
        try:
            return importlib.import_module(home).Stats
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"Airflow has its metrics in none of {', '.join(_HOMES)}")


def timer(name: str, team: str | None) -> AbstractContextManager[Any]:
    """Measures how long a block takes."""
    tags = {} if team is None else {"team_name": team}
    measured: AbstractContextManager[Any] = _stats().timer(name, tags=tags)
    return measured
