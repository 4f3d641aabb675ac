"""What `executor_config` may hold besides kbroker's own keys."""

from __future__ import annotations

import os

from airflow.sdk import DAG, get_current_context, task
from kubernetes.client import models as k8s
from ledger_writer import recorded

OBJECT = k8s.V1Pod(
    spec=k8s.V1PodSpec(
        containers=[k8s.V1Container(name="base", env=[k8s.V1EnvVar("FORM", "object")])]
    )
)
PATCH = {"spec": {"containers": [{"name": "base", "env": [{"name": "FORM", "value": "patch"}]}]}}

with DAG("overrides"):

    @task(executor_config={"pod_override": OBJECT})
    def by_object() -> None:
        with recorded(get_current_context()):
            pass

    @task(executor_config={"pod_override": PATCH})
    def by_patch() -> None:
        with recorded(get_current_context()):
            pass

    @task(executor_config={"pod_template_file": os.environ.get("OTHER_TEMPLATE", "")})
    def by_template() -> None:
        with recorded(get_current_context()):
            pass

    [by_object(), by_patch(), by_template()]
