"""A task that waits, and does not hear that nobody wants it any more.

Its supervisor asks so rarely that it does not end by itself when its state was changed from
outside: if it ends, somebody has ended it.
"""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task
from ledger_writer import recorded, wait_at_gate

with DAG("deaf"):

    @task(executor_config={"env": {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "60"}})
    def gated() -> None:
        context = get_current_context()
        with recorded(context):
            wait_at_gate(context["dag_run"].conf["gate"])

    gated()
