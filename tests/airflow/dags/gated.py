"""Single tasks that run until the test lets them go on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, get_current_context, task
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


with DAG("gated", max_active_runs=16):

    @task
    def gated() -> None:
        context = get_current_context()
        with recorded(context):
            print("waiting at the gate", flush=True)
            wait_at_gate(context["dag_run"].conf["gate"])

    gated()

with DAG("gated_deferred", max_active_runs=16):
    DeferredAtGate(task_id="gated")

with DAG("unplaceable"):

    @task(executor_config={"node_selectors": {"no-such": "node"}})
    def waiting() -> None:
        with recorded(get_current_context()):
            pass

    waiting()
