"""The manifest of an attempt's pod: template, configuration, overrides, identity."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kbroker import naming
from kbroker.errors import TemplateError
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchMessage
from kbroker.pod_spec import DEFAULT_TEMPLATE, build_manifest, load_template
from kbroker.task import Launch, TaskKey

CONFIG = Path(__file__).parents[2] / "config"
ATTEMPT = Launch("kbroker", TaskKey("my dag", "täsk", "run"), "launch-1").attempt(1)


def message(**changes) -> LaunchMessage:
    values: dict[str, Any] = {
        "attempt": ATTEMPT,
        "executor_id": "host-ab12cd",
        "cluster": "default",
        "namespace": "jobs",
        "command": ("python", "-c", "pass"),
    }
    return LaunchMessage(**values | changes)


def build(template=None, settings=None, config=None, create_before=None, **changes):
    return build_manifest(
        template or load_template(None),
        KubeConfig.from_values(
            **{f"kubernetes.{name}": value for name, value in (settings or {}).items()}
        ).kubernetes,
        message(**changes),
        KubernetesExecutorConfig.from_dict(config),
        create_before,
    )


def base(pod: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in pod["spec"]["containers"] if each["name"] == "base")


def template(**spec) -> dict[str, Any]:
    pod = load_template(None)
    pod["spec"].update(spec)
    return pod


def test_the_whole_default_manifest():
    assert build(create_before=1_795_413_600_123) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": naming.pod_name(ATTEMPT),
            "namespace": "jobs",
            "labels": naming.labels_for(ATTEMPT, "host-ab12cd"),
            "annotations": {
                **naming.annotations_for(ATTEMPT, "host-ab12cd"),
                "kbroker/create-before": "2026-11-23T06:00:00.123Z",
            },
            "finalizers": ["kbroker/tracking"],
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "base",
                    "image": "busybox:1.37",
                    "command": ["python", "-c", "pass"],
                }
            ],
        },
    }


def test_the_shipped_template_is_the_built_in_one():
    path = CONFIG / "pod_template.yaml"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == DEFAULT_TEMPLATE
    assert load_template(str(path)) == load_template("") == load_template(None) == DEFAULT_TEMPLATE


def test_without_limit_there_is_no_create_before():
    stale = load_template(None)
    stale["metadata"] = {"annotations": {"kbroker/create-before": "2000-01-01T00:00:00Z"}}
    assert "kbroker/create-before" not in build(stale)["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("settings", "config", "image"),
    [
        ({}, None, "busybox:1.37"),
        ({"image": "configured"}, None, "configured"),
        ({"image": "configured"}, {"image": "tasks"}, "tasks"),
        (
            {"image": "configured"},
            {
                "image": "tasks",
                "pod_override": {"spec": {"containers": [{"name": "base", "image": "override"}]}},
            },
            "override",
        ),
    ],
)
def test_later_layers_win(settings, config, image):
    assert base(build(settings=settings, config=config))["image"] == image


def test_every_setting_reaches_the_pod():
    settings = {
        "image": "configured",
        "image_pull_policy": "Never",
        "service_account_name": "runner",
        "active_deadline": 10.2,
    }
    pod = build(settings=settings)
    assert base(pod)["image"] == "configured"
    assert base(pod)["imagePullPolicy"] == "Never"
    assert pod["spec"]["serviceAccountName"] == "runner"
    assert pod["spec"]["activeDeadlineSeconds"] == 11
    assert "activeDeadlineSeconds" not in build()["spec"]
    own = build(settings=settings, config={"active_deadline_seconds": 5})
    assert own["spec"]["activeDeadlineSeconds"] == 5


def test_an_unusable_setting_is_named():
    with pytest.raises(TemplateError) as caught:
        build(settings={"service_account_name": "Not Valid"})
    assert str(caught.value).startswith(
        "configuration, section [kubernetes]: service_account_name must be "
    )


def test_overrides_replace_what_they_restate():
    start = template(
        volumes=[{"name": "data", "emptyDir": {}}, {"name": "kept", "emptyDir": {}}],
        tolerations=[{"key": "old"}],
        nodeSelector={"disk": "ssd"},
    )
    base(start)["env"] = [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEPT", "value": "1"},
    ]
    spec = build(
        start,
        config={
            "volumes": [{"name": "data", "hostPath": {"path": "/x"}}],
            "tolerations": [],
            "node_selectors": {"zone": "a"},
            "env": {"A": "2", "NEW": "3"},
        },
    )["spec"]
    assert spec["volumes"] == [
        {"name": "data", "hostPath": {"path": "/x"}},
        {"name": "kept", "emptyDir": {}},
    ]
    assert spec["tolerations"] == []
    assert spec["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert base({"spec": spec})["env"] == [
        {"name": "A", "value": "2"},
        {"name": "NEW", "value": "3"},
        {"name": "KEPT", "value": "1"},
    ]


def test_no_layer_can_take_over_the_identity():
    ours = build(create_before=1)
    claims = {
        "generateName": "x-",
        "name": "stolen",
        "namespace": "kube-system",
        "labels": dict.fromkeys([*ours["metadata"]["labels"], "map_index", "free"], "stolen"),
        "annotations": dict.fromkeys(
            [*ours["metadata"]["annotations"], "logical_date", "free"], "stolen"
        ),
    }
    stolen = {
        "metadata": claims,
        "spec": {"containers": [{"name": "base", "command": ["stolen"], "args": ["stolen"]}]},
    }
    in_template = load_template(None)
    in_template["metadata"] = claims
    base(in_template).update(command=["stolen"], args=["stolen"])
    for pod in (
        build(create_before=1, config={"pod_override": stolen}),
        build(in_template, create_before=1),
    ):
        assert pod["metadata"]["labels"].pop("free") == "stolen"
        assert pod["metadata"]["annotations"].pop("free") == "stolen"
        assert pod == ours
    assert naming.attempt_from_annotations(ours["metadata"]["annotations"]) == ATTEMPT


def test_what_the_server_sets_is_not_sent():
    saved = load_template(None)
    saved["metadata"] = {
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": None,
        "managedFields": [],
        "finalizers": ["example.com/kept"],
    }
    saved["status"] = {"phase": "Running"}
    pod = build(saved)
    assert set(pod) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(pod["metadata"]) == {"name", "namespace", "labels", "annotations", "finalizers"}
    assert pod["metadata"]["finalizers"] == ["example.com/kept", "kbroker/tracking"]
    assert build(pod)["metadata"]["finalizers"] == ["example.com/kept", "kbroker/tracking"]


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
def test_a_stated_restart_policy_stays(policy):
    assert build(template(restartPolicy=policy))["spec"]["restartPolicy"] == policy


def test_an_unset_restart_policy_is_never():
    start = load_template(None)
    del start["spec"]["restartPolicy"]
    assert build(start)["spec"]["restartPolicy"] == "Never"


def test_sidecars_keep_their_command():
    start = load_template(None)
    start["spec"]["containers"].insert(0, {"name": "side", "image": "s", "args": ["x"]})
    pod = build(start)
    assert pod["spec"]["containers"][0] == {"name": "side", "image": "s", "args": ["x"]}
    assert base(pod)["command"] == ["python", "-c", "pass"]


def test_manifests_share_nothing():
    start = load_template(None)
    before = copy.deepcopy(start)
    config = {"env": {"A": "1"}, "labels": {"team": "data"}}
    first = build(start, config=config)
    expected = copy.deepcopy(first)
    first["spec"]["containers"][0]["env"].clear()
    first["metadata"]["labels"].clear()
    first["metadata"]["annotations"]["x"] = "y"
    assert build(start, config=config) == expected
    assert start == before


def test_a_changed_template_is_noticed():
    start = load_template(None)
    build(start)
    base(start)["image"] = "changed"
    assert base(build(start))["image"] == "changed"


@given(st.text(min_size=1), st.lists(st.text().filter(lambda word: "\0" not in word), min_size=1))
def test_any_task_gives_json(dag_id, command):
    attempt = Launch("kbroker", TaskKey(dag_id, dag_id, dag_id), dag_id).attempt(1)
    pod = build(attempt=attempt, command=tuple(command))
    assert json.loads(orjson.dumps(pod)) == pod
    assert base(pod)["command"] == command


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (
            {"pod_override": {"spec": {"containers": [{"name": "base", "$patch": "delete"}]}}},
            "executor_config: the pod with its overrides: has no container named 'base' in "
            "spec.containers (found: none): name the one that runs the task so",
        ),
        (
            {"pod_override": {"spec": {"containers": [{"image": "x"}]}}},
            "pod.spec.containers: every element must be an object with 'name'",
        ),
        (
            {"pod_override": {"$patch": "delete"}},
            "executor_config: the pod with its overrides: has no container named 'base' in "
            "spec.containers (found: none): name the one that runs the task so",
        ),
    ],
)
def test_unusable_overrides_are_named(config, error):
    with pytest.raises(TemplateError) as caught:
        build(config=config)
    assert str(caught.value) == error


AIRFLOW = {"merge": "airflow"}


def test_merged_as_airflow_does_the_command_becomes_arguments():
    start = template(terminationGracePeriodSeconds=0)
    base(start).update(command=["/entrypoint"], args=["of-the-template"])
    pod = build(start, AIRFLOW)
    assert base(pod) == {
        "name": "base",
        "image": "busybox:1.37",
        "command": ["/entrypoint"],
        "args": ["python", "-c", "pass"],
        "env": [{"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"}],
    }
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0
    override = {"spec": {"containers": [{"name": "base", "command": ["x"], "args": ["y"]}]}}
    overridden = base(build(start, AIRFLOW, {"pod_override": override}))
    assert (overridden["command"], overridden["args"]) == (["x"], ["python", "-c", "pass"])


def test_merged_as_airflow_does_the_tasks_own_keys_come_before_its_override():
    config = {
        "image": "tasks",
        "env": {"A": "1"},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "pod_override": {
            "spec": {
                "containers": [{"name": "base", "env": [{"name": "B", "value": "2"}]}],
                "volumes": [{"name": "w", "emptyDir": {}}],
            }
        },
    }
    pod = build(settings={**AIRFLOW, "image": "configured"}, config=config)
    assert base(pod)["image"] == "tasks"
    assert [each["name"] for each in base(pod)["env"]] == ["A", "AIRFLOW_IS_K8S_EXECUTOR_POD", "B"]
    assert [each["name"] for each in pod["spec"]["volumes"]] == ["v", "w"]


def test_merged_as_airflow_does_no_layer_can_take_over_the_identity():
    ours = build(settings=AIRFLOW)
    claims = {"name": "stolen", "namespace": "kube-system", "labels": {"dag_id": "stolen"}}
    stolen = {"metadata": claims, "spec": {"containers": [{"name": "base", "args": ["stolen"]}]}}
    assert build(settings=AIRFLOW, config={"pod_override": stolen}) == ours


def test_merged_as_airflow_does_the_first_container_is_the_tasks(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(GOOD.replace("name: base", "name: any"), encoding="utf-8")
    pod = build(load_template(str(path), "airflow"), AIRFLOW)
    assert [each["name"] for each in pod["spec"]["containers"]] == ["base"]


@pytest.mark.parametrize(("names", "said"), [(["side"], "side"), (["side", "base"], "side, base")])
def test_merged_as_airflow_does_no_other_container_runs_the_task(names, said):
    override = {"spec": {"containers": [{"name": name, "image": "x"} for name in names]}}
    with pytest.raises(TemplateError) as caught:
        build(settings=AIRFLOW, config={"pod_override": override})
    assert str(caught.value) == (
        f"executor_config: the pod with its overrides: has the containers {said}, because "
        'kubernetes.merge = "airflow" merges them by position: put the one that runs the task '
        "first, name it 'base', and no other so"
    )


def test_merged_as_airflow_does_base_must_come_first_in_a_template(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(GOOD.replace("{name: base", "{name: side, image: y}, {name: base"))
    assert len(load_template(str(path))["spec"]["containers"]) == 2
    with pytest.raises(TemplateError, match="has the containers base, base, because"):
        load_template(str(path), "airflow")


def test_merged_as_airflow_does_numbers_become_texts():
    start = template()
    base(start).update(env=[{"name": "A", "value": 1}], resources={"limits": {"cpu": 0.5}})
    made = base(build(start, AIRFLOW))
    assert made["env"][0] == {"name": "A", "value": "1"}
    assert made["resources"] == {"limits": {"cpu": "0.5"}}


GOOD = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: base, image: x}]}\n"


@pytest.mark.parametrize("text", [GOOD, f"---\n{GOOD}---\n", f"# comment\n{GOOD}"])
def test_a_template_file(tmp_path, text):
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_template(str(path)) == yaml.safe_load(GOOD)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "has 0 YAML documents: leave exactly one, the Pod"),
        (f"{GOOD}---\n{GOOD}", "has 2 YAML documents: leave exactly one, the Pod"),
        ("- a", "pod must be a Pod object, not list"),
        ("kind: Deployment\napiVersion: v1", "pod.kind must be 'Pod', not 'Deployment'"),
        ("kind: Pod\napiVersion: v2", "pod.apiVersion must be 'v1', not 'v2'"),
        ("kind: Pod", "pod.apiVersion is missing: a template is a whole Pod"),
        ("spec: {}\napiVersion: v1", "pod.kind is missing: a template is a whole Pod"),
        (
            GOOD.replace("base", "main"),
            "has no container named 'base' in spec.containers (found: main): "
            "name the one that runs the task so",
        ),
        (
            "apiVersion: v1\nkind: Pod",
            "has no container named 'base' in spec.containers (found: none): "
            "name the one that runs the task so",
        ),
        (GOOD.replace("spec", "sepc"), "pod: a Pod has no field 'sepc'; did you mean 'spec'?"),
        (
            GOOD + "metadata: {labels: {version: 1}}",
            "pod.metadata.labels.version must be a string, not number: quote it",
        ),
        (
            GOOD + "metadata: {annotations: {day: 2026-11-23}}",
            "pod.metadata.annotations.day: must be plain JSON, not date: quote it?",
        ),
        (
            GOOD + "metadata: {labels: {1: x}}",
            "pod.metadata.labels: key 1 must be a string: quote it",
        ),
    ],
)
def test_an_unusable_template_is_named(tmp_path, text, error):
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        load_template(str(path))
    assert str(caught.value) == f"pod template {path}: {error}"


@pytest.mark.parametrize("text", ["spec: [", "a: 1\n b: 2", "!!python/name:os.x ''", "\x01"])
def test_invalid_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "template.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        load_template(str(path))
    error = str(caught.value)
    assert error.startswith(f"pod template {path}: is not valid YAML")
    assert error.endswith(": correct it there")
    assert "\n" not in error


def test_a_template_that_is_not_there(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(TemplateError) as caught:
        load_template(str(path))
    assert str(caught.value) == (
        f"pod template {path}: No such file or directory: correct pod_template_file, "
        "or leave it empty for the built-in template"
    )


def test_a_template_that_is_no_text(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(TemplateError) as caught:
        load_template(str(path))
    assert str(caught.value) == f"pod template {path}: is not UTF-8 text"


def test_the_policy_concerns_the_pods_that_are_built():
    path = CONFIG / "kubernetes" / "create-before-policy.yaml"
    policy, binding = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    assert policy["apiVersion"] == binding["apiVersion"] == "admissionregistration.k8s.io/v1"
    assert (policy["kind"], binding["kind"]) == (
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    )
    assert binding["spec"] == {
        "policyName": policy["metadata"]["name"],
        "validationActions": ["Deny"],
    }
    metadata = build(create_before=1)["metadata"]
    selected = policy["spec"]["matchConstraints"]["objectSelector"]["matchLabels"]
    assert selected.items() <= metadata["labels"].items()
    assert policy["spec"]["failurePolicy"] == "Fail"
    (validation,) = policy["spec"]["validations"]
    assert validation["message"] == "creation time is past kbroker/create-before"
    assert validation["reason"] == "Invalid"
    assert f"'{naming.CREATE_BEFORE}'" in validation["expression"]
    assert naming.CREATE_BEFORE in metadata["annotations"]
