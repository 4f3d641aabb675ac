"""A task's executor_config, from what Airflow hands over to what kbroker reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from kubernetes.client import ApiClient, Configuration
from kubernetes.client import models as k8s

from kbroker.airflow.overrides import plain_config
from kbroker.errors import ExecutorConfigError
from kbroker.executor_config import KubernetesExecutorConfig

POD = k8s.V1Pod(
    api_version="v1",
    kind="Pod",
    metadata=k8s.V1ObjectMeta(
        labels={"release_name": "x", "hostIP": "y"},
        annotations={},
        creation_timestamp=datetime(2026, 11, 23, 6, tzinfo=UTC),
    ),
    spec=k8s.V1PodSpec(
        host_network=False,
        host_ipc=True,
        termination_grace_period_seconds=0,
        node_selector={},
        containers=[
            k8s.V1Container(
                name="base",
                env=[
                    k8s.V1EnvVar(
                        name="POD_IP",
                        value_from=k8s.V1EnvVarSource(
                            field_ref=k8s.V1ObjectFieldSelector(field_path="status.podIP")
                        ),
                    )
                ],
                env_from=[],
                resources=k8s.V1ResourceRequirements(requests={"cpu": "1"}),
                lifecycle=k8s.V1Lifecycle(
                    pre_stop=k8s.V1LifecycleHandler(_exec=k8s.V1ExecAction(command=["sync"]))
                ),
                ports=[k8s.V1ContainerPort(container_port=80, host_ip="10.0.0.1")],
                liveness_probe=k8s.V1Probe(http_get=k8s.V1HTTPGetAction(port="http")),
            )
        ],
        volumes=[k8s.V1Volume(name="v", empty_dir=k8s.V1EmptyDirVolumeSource())],
        affinity=k8s.V1Affinity(),
    ),
)
PLAIN: dict[str, Any] = {"spec": {"containers": [{"name": "base", "image": "x"}]}}


def read(config: Any) -> KubernetesExecutorConfig:
    return KubernetesExecutorConfig.from_dict(plain_config(config))


def test_a_model_becomes_what_the_client_would_send() -> None:
    sent = ApiClient(Configuration()).sanitize_for_serialization(POD)
    assert sent["spec"]["containers"][0]["lifecycle"] == {
        "preStop": {"exec": {"command": ["sync"]}}
    }
    assert plain_config({"pod_override": POD}) == {"pod_override": sent}
    assert read({"pod_override": POD}).pod_override == sent


def test_an_object_of_an_older_client_may_lack_what_the_class_has() -> None:
    class Container:
        attribute_map: ClassVar = {"name": "name", "new_field": "newField"}

        def __init__(self) -> None:
            self.name = "base"

    assert plain_config({"pod_override": {"spec": {"containers": [Container()]}}}) == {
        "pod_override": {"spec": {"containers": [{"name": "base"}]}}
    }


@pytest.mark.parametrize(
    "override",
    [
        PLAIN,
        "spec: {containers: [{name: base, image: x}]}",
        k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="x")])),
    ],
)
@pytest.mark.parametrize("section", [False, True])
def test_every_form_of_an_override(override: Any, section: bool) -> None:
    config = {"pod_override": override}
    config = {"KubernetesExecutor": config} if section else config
    assert read(config).pod_override == PLAIN


def test_the_dict_of_airflow_1_10() -> None:
    stated = {
        "image": "x",
        "request_cpu": "500m",
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "k"}],
        "affinity": {"podAffinity": {}},
    }
    models = {
        **stated,
        "volumes": [k8s.V1Volume(name="v", empty_dir=k8s.V1EmptyDirVolumeSource())],
        "tolerations": [k8s.V1Toleration(key="k")],
        "affinity": k8s.V1Affinity(pod_affinity=k8s.V1PodAffinity()),
    }
    for given in (stated, models):
        assert read({"KubernetesExecutor": given}).as_dict() == stated


def test_nothing_is_nothing() -> None:
    assert plain_config(None) is None
    assert plain_config({}) == {}
    assert plain_config({"pod_override": None, "KubernetesExecutor": None}) == {
        "pod_override": None,
        "KubernetesExecutor": None,
    }
    assert read({"pod_override": None, "KubernetesExecutor": None}).as_dict() == {}


def test_what_is_meant_for_other_executors_is_left_out() -> None:
    foreign = {
        "CeleryExecutor": {"queue": "x"},
        "LocalExecutor": {},
        "overrides": {"containerOverrides": [{"name": "x"}]},
        "containerOverrides": {},
        "launchType": "FARGATE",
        "resources": object(),
        7: 8,
    }
    assert plain_config({**foreign, "image": "x"}) == {"image": "x"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("pod_overide", "pod_override"),
        ("podOverride", "pod_override"),
        ("pod_overrides", "pod_override"),
        ("pod-template-file", "pod_template_file"),
        ("pod_template", "pod_template_file"),
        ("kubernetes_executor", "KubernetesExecutor"),
        ("KuberntesExecutor", "KubernetesExecutor"),
        ("volume", "volumes"),
    ],
)
def test_what_is_misspelt_is_named(key: str, meant: str) -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        plain_config({key: {}})
    assert str(caught.value) == f"executor_config: unknown key {key!r}; did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (7, "executor_config: pod_override must be a Pod object, not number"),
        (["x"], "executor_config: pod_override must be a Pod object, not list"),
        (object(), "executor_config: pod_override must be a Pod object, not object"),
        ("a: [", "executor_config: pod_override is not YAML of one Pod: "),
        (
            k8s.V1PodSpec(containers=[]),
            "executor_config: pod_override: a Pod has no field 'containers'",
        ),
        (
            {"api_version": "v1"},
            "executor_config: pod_override: a Pod has no field 'api_version'; ",
        ),
        ({"spec": {"priority": {1, 2}}}, "executor_config: pod_override.spec.priority: must be "),
    ],
)
def test_what_is_no_pod_is_one_line(override: Any, said: str) -> None:
    with pytest.raises(ExecutorConfigError) as caught:
        plain_config({"pod_override": override})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_none() -> None:
    with pytest.raises(ExecutorConfigError, match="executor_config must be an object, not list"):
        plain_config([("image", "x")])  # type: ignore[arg-type]


def test_the_namespace_of_an_override_is_the_tasks() -> None:
    override = {"metadata": {"namespace": "team-a"}}
    assert read({"pod_override": override}).namespace == "team-a"
    assert read({"KubernetesExecutor": {"pod_override": override}}).namespace == "team-a"
    assert read({"pod_override": override, "namespace": "mine"}).namespace == "mine"
    section = {"KubernetesExecutor": {"namespace": "mine"}}
    assert read({"pod_override": override, **section}).namespace == "mine"


def test_what_was_given_is_not_changed() -> None:
    config = {"pod_override": {"metadata": {"namespace": "a"}}, "KubernetesExecutor": {"env": {}}}
    plain = plain_config(config)
    assert plain is not None
    plain["pod_override"]["metadata"]["namespace"] = "b"
    plain["KubernetesExecutor"]["env"]["x"] = "y"
    assert config == {
        "pod_override": {"metadata": {"namespace": "a"}},
        "KubernetesExecutor": {"env": {}},
    }
