"""A task that runs until the test lets it go on."""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task
from ledger_writer import recorded, wait_at_gate

with DAG("gated", max_active_runs=16):

    @task
    def gated() -> None:
        context = get_current_context()
        with recorded(context):
            print("waiting at the gate", flush=True)
            wait_at_gate(context["dag_run"].conf["gate"])

    gated()
