"""One task of each kind that a scheduler treats in a way of its own."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, TaskGroup, get_current_context, task
from ledger_writer import recorded

MIB = 1 << 20


class Deferred(BaseOperator):
    """Defers for a second, and resumes."""

    def execute(self, context: Any) -> None:
        with recorded(context):
            pass
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resume")

    def resume(self, context: Any, event: Any) -> str:
        with recorded(context, "resume"):
            return "resumed"


with DAG("flow"):

    @task(executor_config={"KubernetesExecutor": {"env": {"FORM": "section"}}})
    def first() -> dict[str, int]:
        with recorded(get_current_context()):
            return {"number": 41}

    @task.branch(executor_config={"env": {"FORM": "top level"}})
    def choose(got: dict[str, int]) -> str:
        with recorded(get_current_context()):
            return "left" if got["number"] == 41 else "right"

    @task
    def left(got: dict[str, int]) -> int:
        with recorded(get_current_context()):
            return got["number"] + 1

    @task
    def right() -> None:
        with recorded(get_current_context()):
            pass

    @task(trigger_rule="none_failed_min_one_success")
    def joined() -> None:
        with recorded(get_current_context()):
            pass

    @task
    def fails() -> None:
        with recorded(get_current_context()):
            raise ValueError("it always fails")

    @task(trigger_rule="one_failed")
    def after_failure() -> None:
        with recorded(get_current_context()):
            pass

    @task
    def never() -> None:
        with recorded(get_current_context()):
            pass

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def flaky() -> None:
        context = get_current_context()
        with recorded(context):
            if context["ti"].try_number == 1:
                raise ValueError("it fails the first time")

    @task(execution_timeout=timedelta(seconds=2))
    def too_long() -> None:
        with recorded(get_current_context()):
            time.sleep(120)

    @task(executor_config={"limit_memory": "768Mi"})
    def hungry() -> None:
        with recorded(get_current_context()):
            print("this much is too much", flush=True)
            eaten = bytearray(1536 * MIB)
            # Only pages that are written to count.
            for page in range(0, len(eaten), 4096):
                eaten[page] = 1
            time.sleep(120)

    @task(executor_config={"image": "nowhere.invalid/airflow:1"})
    def unpullable() -> None:
        with recorded(get_current_context()):
            pass

    got = first()
    choose(got) >> [left(got), right()] >> joined()
    failing = fails()
    failing >> after_failure()
    failing >> never()
    flaky()
    too_long()
    hungry()
    unpullable()
    Deferred(task_id="deferred")

    with TaskGroup("group"):

        @task
        def inner() -> str:
            context = get_current_context()
            with recorded(context):
                return context["ti"].task_id

        inner()
