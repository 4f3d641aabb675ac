"""A task whose pod no node takes."""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task
from ledger_writer import recorded

with DAG("unplaceable"):

    @task(executor_config={"node_selectors": {"no-such": "node"}})
    def waiting() -> None:
        with recorded(get_current_context()):
            pass

    waiting()
