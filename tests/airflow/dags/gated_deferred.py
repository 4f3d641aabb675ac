"""A task that waits, defers, and waits again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator
from ledger_writer import recorded, wait_at_gate


class DeferredAtGate(BaseOperator):
    """Waits, defers, and waits again."""

    def execute(self, context: Any) -> None:
        conf = context["dag_run"].conf
        with recorded(context):
            wait_at_gate(conf["gate"])
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resume")

    def resume(self, context: Any, event: Any) -> None:
        with recorded(context, "resume"):
            wait_at_gate(context["dag_run"].conf["second_gate"])


with DAG("gated_deferred", max_active_runs=16):
    DeferredAtGate(task_id="gated")
