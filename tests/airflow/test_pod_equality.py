"""Equal input gives the pod that Airflow's own KubernetesExecutor makes.

Judged by `PodGenerator.construct_pod` of the installed cncf-kubernetes provider, over the whole
manifest. What may differ stands in `without_what_may_differ`, and for users in
docs/pod-templates.md; nothing else may.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.providers.cncf.kubernetes", reason="needs Airflow and its provider")

import orjson
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import models as k8s

from kbroker.airflow.overrides import plain_config
from kbroker.errors import TemplateError
from kbroker.executor_config import BASE_CONTAINER
from kbroker.kube_config import KubeConfig
from kbroker.manifests import Manifests
from kbroker.message import LaunchRequest
from kbroker.naming import DEPLOYMENT, FINALIZER, MANAGED_BY
from kbroker.task import TaskKey
from kbroker.tracked import track
from tests.airflow.pod_cases import ANY_NAME, BASE, CASES, Case, base, pod
from tests.airflow.random_pods import random_pod

NAMESPACE = "airflow"
SCHEDULER = "scheduler-1"
TASK: dict[str, Any] = {
    "dag_id": "dag",
    "task_id": "task",
    "run_id": "manual__2026-11-23T06:30:00+00:00",
    "try_number": 1,
    "map_index": -1,
    "args": ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", "{}"],
    "date": None,
}


def airflows(case: Case) -> dict[str, Any]:
    """The pod that Airflow makes."""
    made = PodGenerator.construct_pod(
        **{**TASK, **case.task},
        pod_id="any-name",
        kube_image=case.image or None,
        pod_override_object=copy.deepcopy(case.override),
        base_worker_pod=PodGenerator.deserialize_model_dict(yaml.safe_load(case.template)),
        namespace=NAMESPACE,
        scheduler_job_id=SCHEDULER,
    )
    return orjson.loads(orjson.dumps(PodGenerator.serialize_pod(made)))


def ours(case: Case, folder: Path, **settings: Any) -> dict[str, Any]:
    """The pod that a launcher creates."""
    template = folder / "template.yaml"
    template.write_text(case.template, encoding="utf-8")
    values = {
        "merge": "airflow",
        "namespace": NAMESPACE,
        "pod_template_file": str(template),
        "image": case.image,
        **settings,
    }
    config = KubeConfig.from_values(**{f"kubernetes.{name}": v for name, v in values.items()})
    task = {**TASK, **case.task}
    key = TaskKey(
        *(task[name] for name in ("dag_id", "task_id", "run_id", "try_number", "map_index")),
        None if task["date"] is None else task["date"].isoformat(),
    )
    overrides = plain_config({"pod_override": case.override} if case.override else None)
    request = LaunchRequest(key, task["args"], "launch-1", executor_config=overrides)
    message = track(request, config, SCHEDULER, 0.0).message
    return Manifests(config.kubernetes).build(message, 1_795_413_600_123)


def without_what_may_differ(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without the name, and without what kbroker's pods alone carry, or Airflow's."""
    rest = copy.deepcopy(manifest)
    metadata = rest["metadata"]
    del metadata["name"]
    for label in (MANAGED_BY, DEPLOYMENT, "airflow_version"):
        metadata["labels"].pop(label, None)
    annotations = metadata["annotations"]
    for name in [name for name in annotations if name.startswith("kbroker/")]:
        del annotations[name]
    if annotations.get("map_index") == "-1":
        del annotations["map_index"]
    held = [name for name in metadata.get("finalizers", []) if name != FINALIZER]
    metadata.pop("finalizers", None)
    return rest if not held else {**rest, "metadata": {**metadata, "finalizers": held}}


def test_there_are_enough() -> None:
    assert len(CASES) >= 25


@pytest.mark.parametrize("name", CASES)
def test_it_is_airflows_pod(name: str, tmp_path: Path) -> None:
    made, wanted = ours(CASES[name], tmp_path), airflows(CASES[name])
    assert without_what_may_differ(made) == without_what_may_differ(wanted)


@pytest.mark.parametrize("seed", range(20))
def test_any_pod_is_airflows(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        template = random_pod(rng, rng.choice(["base", "other"]))
        override = PodGenerator.deserialize_model_dict(random_pod(rng, "base"))
        case = Case(override, yaml.safe_dump(template), rng.choice(["", "configured:1"]))
        made, wanted = ours(case, tmp_path), airflows(case)
        assert without_what_may_differ(made) == without_what_may_differ(wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_hook_that_changes_nothing_changes_nothing(name: str, tmp_path: Path) -> None:
    hooked = ours(CASES[name], tmp_path, pod_mutation_hook="tests.pod_hooks.nothing")
    assert hooked == ours(CASES[name], tmp_path)


@pytest.mark.parametrize("name", ["nothing but a template", "a sidecar", "volumes"])
def test_a_hook_changes_what_it_does_under_airflow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pod_hooks import everything  # noqa: PLC0415

    made = ours(CASES[name], tmp_path, pod_mutation_hook="tests.pod_hooks:everything")
    wanted = PodGenerator.deserialize_model_dict(airflows(CASES[name]))
    everything(wanted)
    theirs = without_what_may_differ(PodGenerator.serialize_pod(wanted))
    assert without_what_may_differ(made) == theirs


@pytest.mark.parametrize(
    ("case", "theirs"),
    [
        (Case(pod(k8s.V1Container(name="sidecar", image="x"))), ["sidecar"]),
        (Case(pod(k8s.V1Container(name="sidecar", image="x"), base())), ["sidecar", "base"]),
        (
            Case(template=ANY_NAME + '  - {name: base, image: "apache/airflow:3.3.2"}\n'),
            ["base", "base"],
        ),
    ],
)
def test_where_another_container_would_run_the_task_it_is_refused(
    case: Case, theirs: list[str], tmp_path: Path
) -> None:
    assert [each["name"] for each in airflows(case)["spec"]["containers"]] == theirs
    with pytest.raises(TemplateError, match="put the one that runs the task first"):
        ours(case, tmp_path)


def test_what_the_task_runs_is_not_for_an_override_to_say(tmp_path: Path) -> None:
    case = Case(pod(base(args=["other"])), BASE)
    (theirs,) = airflows(case)["spec"]["containers"]
    (made,) = ours(case, tmp_path)["spec"]["containers"]
    assert theirs["args"] == ["other"]
    assert made["args"] == TASK["args"]
    assert made["name"] == BASE_CONTAINER
