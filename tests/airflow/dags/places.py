"""A task of this executor's, and one of another's where there is another one."""

from __future__ import annotations

import os

from airflow.sdk import DAG, task

with DAG("places"):

    @task
    def here() -> str:
        return os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD", "no pod")

    @task(executor=os.environ.get("OTHER_EXECUTOR") or None)
    def elsewhere() -> str:
        return os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD", "no pod")

    [here(), elsewhere()]
