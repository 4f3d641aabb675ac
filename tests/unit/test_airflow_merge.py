"""The merge for overrides written for Airflow: the same as Airflow's own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kbroker.airflow_merge import airflow_merge
from kbroker.errors import TemplateError
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.pod_spec import build_manifest
from kbroker.settings import KubernetesSettings
from tests.unit.launcher_scene import launch_message

HERE = Path(__file__).parent / "airflow_merge_cases"
DOCUMENT = yaml.safe_load((HERE / "cases.yaml").read_text())
RESULTS = json.loads((HERE / "results.json").read_text())


def test_every_case_has_an_answer_of_airflows() -> None:
    assert list(RESULTS) == list(DOCUMENT["cases"])
    assert len(RESULTS) >= 30


@pytest.mark.parametrize("name", RESULTS)
def test_it_is_airflows_own(name: str) -> None:
    case = DOCUMENT["cases"][name]
    base, override = DOCUMENT["bases"][case["base"]], case["patch"]
    before = copy.deepcopy((base, override))
    result = airflow_merge(base, override)
    assert result == RESULTS[name]
    assert (base, override) == before


def test_the_result_shares_nothing() -> None:
    base = DOCUMENT["bases"]["rich"]
    result: Any = airflow_merge(base, {"spec": {"containers": [{"name": "base"}]}})
    result["spec"]["containers"][1]["env"].clear()
    result["spec"]["volumes"].clear()
    assert base["spec"]["containers"][1]["env"]
    assert base["spec"]["volumes"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"spec": {"containers": {}}}, None),
        ({"spec": {"containers": {"a": 1}}}, "containers must be a list, not dict"),
        ({"spec": {"volumes": "x"}}, "volumes must be a list, not str"),
        ({"spec": ["x"]}, "pod.spec must be an object, not list"),
        ({"spec": {"containers": ["x"]}}, "every element must be an object"),
    ],
)
def test_what_cannot_be_merged_is_said(override: Any, said: str | None) -> None:
    base = DOCUMENT["bases"]["rich"]
    if said is None:
        assert airflow_merge(base, override)["spec"]["containers"] == base["spec"]["containers"]
        return
    with pytest.raises(TemplateError, match=said):
        airflow_merge(base, override)


def test_the_setting_chooses_the_merge_of_the_override_alone() -> None:
    override = {"spec": {"containers": [{"name": "any", "env": [{"name": "A", "value": "2"}]}]}}
    config = KubernetesExecutorConfig(env={"A": "1"}, pod_override=override)
    base = {"spec": {"containers": [{"name": "base", "image": "x"}]}}

    def containers(merge: str) -> list[dict[str, Any]]:
        settings = KubernetesSettings(merge=merge)
        pod = build_manifest(base, settings, launch_message(), config, None)
        return list(pod["spec"]["containers"])

    strategic = {container["name"]: container.get("env") for container in containers("strategic")}
    assert strategic == {
        "any": [{"name": "A", "value": "2"}],
        "base": [{"name": "A", "value": "1"}],
    }
    override["spec"]["containers"][0]["name"] = "base"
    config = KubernetesExecutorConfig(env={"A": "1"}, pod_override=override)
    (merged,) = containers("airflow")
    assert merged["env"] == [
        {"name": "A", "value": "1"},
        {"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"},
        {"name": "A", "value": "2"},
    ]
