"""Three tasks in a pool of one slot, to run by their priority."""

from __future__ import annotations

from airflow.sdk import DAG, get_current_context, task
from ledger_writer import recorded

with DAG("priorities"):

    @task(pool="one")
    def ranked() -> None:
        with recorded(get_current_context()):
            pass

    for rank in (1, 3, 2):
        ranked.override(task_id=f"rank_{rank}", priority_weight=rank)()
