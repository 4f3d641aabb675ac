"""The table of what becomes of the KubernetesExecutor's options, beside the provider itself."""

from __future__ import annotations

import pytest
from airflow.providers.cncf.kubernetes.get_provider_info import get_provider_info

from kbroker.airflow.migration.airflow_cfg import Given
from kbroker.airflow.migration.option_rules import RULES
from kbroker.airflow.migration.plan import plan

OPTIONS = get_provider_info()["config"]["kubernetes_executor"]["options"]


def test_the_table_names_exactly_the_providers_options() -> None:
    assert [rule.option for rule in RULES] == list(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_default_needs_no_decision(option: str) -> None:
    """Many a file states defaults."""
    image = {"worker_container_repository": "apache/airflow", "worker_container_tag": "3"}
    texts = {option: str(OPTIONS[option]["default"] or "")} | image
    configured = {("kubernetes_executor", n): Given(t, "airflow.cfg") for n, t in texts.items()}
    assert plan(configured).decisions == ()
