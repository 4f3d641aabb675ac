"""Per-task overrides: reading, refusing, and the patch they make."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ExecutorConfigError
from kbroker.executor_config import KubernetesExecutorConfig

EVERYTHING = {
    "image": "repo/image:1",
    "image_pull_policy": "Always",
    "request_memory": "512Mi",
    "request_cpu": 0.5,
    "limit_memory": "1Gi",
    "limit_cpu": "2",
    "gcp_service_account_key": "key",
    "node_selectors": {"disk": "ssd"},
    "affinity": {"nodeAffinity": {}},
    "annotations": {"example.com/note": "any ünicode"},
    "volumes": [{"name": "data", "emptyDir": {}}],
    "volume_mounts": [{"name": "data", "mountPath": "/data"}],
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "labels": {"team": "data"},
    "env": {"A": "1", "B": ""},
    "service_account_name": "runner.x",
    "pod_template_file": "/templates/gpu.yaml",
    "pod_override": {"spec": {"hostNetwork": True}},
    "namespace": "jobs",
    "cluster": "eu-1",
    "launch_timeout": 90.5,
    "active_deadline_seconds": 3600,
}


def test_every_key_is_checked_and_covered_here():
    assert {field.name for field in dataclasses.fields(KubernetesExecutorConfig)} == set(EVERYTHING)


def test_airflows_members_come_first():
    names = [field.name for field in dataclasses.fields(KubernetesExecutorConfig)]
    assert names[:13] == list(EVERYTHING)[:13]


@pytest.mark.parametrize(
    "config", [None, {}, {"KubernetesExecutor": {}}, dict.fromkeys(EVERYTHING)]
)
def test_nothing_stated_is_all_defaults(config):
    read = KubernetesExecutorConfig.from_dict(config)
    assert read == KubernetesExecutorConfig()
    assert read.as_dict() == {}
    assert read.to_pod_patch() == {}
    assert repr(read) == "KubernetesExecutorConfig()"


@pytest.mark.parametrize(
    "config",
    [
        EVERYTHING,
        {"KubernetesExecutor": EVERYTHING},
        {
            "namespace": "jobs",
            "KubernetesExecutor": {k: v for k, v in EVERYTHING.items() if k != "namespace"},
        },
    ],
)
def test_flat_and_nested_are_the_same(config):
    assert KubernetesExecutorConfig.from_dict(config).as_dict() == EVERYTHING


def test_as_dict_round_trips_through_json():
    read = KubernetesExecutorConfig.from_dict(EVERYTHING)
    again = json.loads(json.dumps(read.as_dict()))
    assert KubernetesExecutorConfig.from_dict(again) == read


@given(st.sets(st.sampled_from(sorted(EVERYTHING))))
def test_any_choice_of_keys_round_trips(names):
    config = {name: EVERYTHING[name] for name in names}
    read = KubernetesExecutorConfig.from_dict(config)
    assert read.as_dict() == config
    assert KubernetesExecutorConfig.from_dict(read.as_dict()) == read


def test_nothing_is_shared_with_the_caller():
    volumes = [{"name": "data", "emptyDir": {}}]
    read = KubernetesExecutorConfig(volumes=volumes)
    volumes[0]["name"] = "changed"
    read.as_dict()["volumes"][0]["name"] = "changed"
    read.to_pod_patch()["spec"]["volumes"][0]["name"] = "changed"
    assert read.volumes == [{"name": "data", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image", 1, "image must be a non-empty string, not number"),
        ("image", "", "image must be a non-empty string, not an empty string"),
        (
            "image_pull_policy",
            "always",
            "image_pull_policy must be Always, IfNotPresent or Never, not 'always'",
        ),
        (
            "request_memory",
            512,
            "request_memory must be a quantity string such as '512Mi', not 512",
        ),
        (
            "limit_memory",
            "1 GB",
            "limit_memory must be a quantity string such as '512Mi', not '1 GB'",
        ),
        (
            "request_cpu",
            True,
            "request_cpu must be a number of CPUs or a quantity like '500m', not True",
        ),
        ("limit_cpu", -1, "limit_cpu must be a number of CPUs or a quantity like '500m', not -1"),
        (
            "limit_cpu",
            float("nan"),
            "limit_cpu must be a number of CPUs or a quantity like '500m', not nan",
        ),
        (
            "gcp_service_account_key",
            ["k"],
            "gcp_service_account_key must be a non-empty string, not list",
        ),
        (
            "gcp_service_account_key",
            "My Key",
            "gcp_service_account_key must be lower-case letters, digits, inner '-' and '.', "
            "not 'My Key'",
        ),
        (
            "node_selectors",
            {"disk": 1},
            "node_selectors.disk must be a string, not number: quote it",
        ),
        ("node_selectors", ["x"], "node_selectors must be an object of strings, not list"),
        ("affinity", [], "affinity must be an object, not list"),
        ("affinity", {"a": {1: 2}}, "affinity.a: key 1 must be a string: quote it"),
        ("affinity", {"a": [object()]}, "affinity.a[0]: must be plain JSON, not object: quote it?"),
        (
            "affinity",
            {"a": float("inf")},
            "affinity.a: inf is not a number that JSON can hold",
        ),
        (
            "annotations",
            {"a": True},
            "annotations.a must be a string, not boolean: quote it",
        ),
        ("annotations", {"a": None}, "annotations.a must be a string, not null"),
        ("annotations", {"a b": "x"}, "annotations: 'a b' is not a valid Kubernetes key"),
        ("volumes", {"name": "x"}, "volumes must be a list of objects, not object"),
        ("volumes", ["x"], "volumes[0] must be an object, not string"),
        ("volumes", [{"emptyDir": {}}], "volumes[0] needs 'name'"),
        ("volumes", [{"name": 1}], "volumes[0].name must be a non-empty string, not number"),
        ("volume_mounts", [{"name": "x"}], "volume_mounts[0] needs 'mountPath'"),
        ("tolerations", {"key": "x"}, "tolerations must be a list of objects, not object"),
        (
            "labels",
            {"a": "no spaces"},
            "labels.a must be at most 63 letters, digits, '-', '_', '.', with a letter or digit "
            "at both ends, not 'no spaces'",
        ),
        ("env", {"FOO": 1}, "env.FOO must be a string, not number: quote it"),
        ("env", {"FOO": None}, "env.FOO must be a string, not null: quote it"),
        ("env", {"A=B": "x"}, "env: 'A=B' is not a name for an environment variable"),
        (
            "env",
            "A=1",
            "env must be an object of strings or a list of objects with name and value or "
            "valueFrom, not string",
        ),
        ("env", [{"value": "x"}], "env[0]: None is not a name for an environment variable"),
        ("env", [{"name": "A", "value": 1}], "env[0].value must be a string, not number: quote it"),
        (
            "env",
            [{"name": "A", "value_from": {}}],
            "env[0]: unknown key 'value_from'; did you mean 'valueFrom'?",
        ),
        (
            "env",
            [{"name": "A", "value": "x", "valueFrom": {}}],
            "env[0] must have value or valueFrom, not both",
        ),
        (
            "env",
            [{"name": "A", "valueFrom": "x"}],
            "env[0].valueFrom must be an object, not string",
        ),
        (
            "service_account_name",
            "Runner",
            "service_account_name must be lower-case letters, digits, inner '-' and '.', "
            "not 'Runner'",
        ),
        (
            "namespace",
            "my_jobs",
            "namespace must be lower-case letters, digits and inner '-', at most 63, not 'my_jobs'",
        ),
        (
            "cluster",
            "x" * 64,
            "cluster must be lower-case letters, digits and inner '-', at most 63, "
            f"not '{'x' * 64}'",
        ),
        ("launch_timeout", 0, "launch_timeout must be a number of seconds above 0, not 0"),
        ("launch_timeout", "60", "launch_timeout must be a number of seconds above 0, not '60'"),
        (
            "launch_timeout",
            10**400,
            f"launch_timeout must be a number of seconds above 0, not {10**400}",
        ),
        (
            "active_deadline_seconds",
            1.5,
            "active_deadline_seconds must be a whole number of seconds from 1, not 1.5",
        ),
        ("pod_override", ["x"], "pod_override must be a Pod object, not list"),
        ("pod_override", "just words", "pod_override must be a Pod object, not string"),
        (
            "pod_override",
            {"sepc": {}},
            "pod_override: a Pod has no field 'sepc'; did you mean 'spec'?",
        ),
        ("pod_override", {"kind": "Job"}, "pod_override.kind must be 'Pod', not 'Job'"),
        ("pod_override", {"spec": []}, "pod_override.spec must be an object, not list"),
        (
            "pod_override",
            {"spec": {"containers": {"name": "base"}}},
            "pod_override.spec.containers must be a list of objects, not object",
        ),
        (
            "pod_override",
            {"metadata": {"labels": {"a": 1}}},
            "pod_override.metadata.labels.a must be a string, not number: quote it",
        ),
    ],
)
def test_a_wrong_value_is_named(key, value, message):
    with pytest.raises(ExecutorConfigError) as caught:
        KubernetesExecutorConfig.from_dict({"KubernetesExecutor": {key: value}})
    assert str(caught.value) == f"executor_config: {message}"
    with pytest.raises(ExecutorConfigError):
        KubernetesExecutorConfig(**{key: value})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"imgae": "x"}, "executor_config: unknown key 'imgae'; did you mean 'image'?"),
        (
            {"KubernetesExecutor": {"node_selector": {}}},
            "executor_config: unknown key 'node_selector'; did you mean 'node_selectors'?",
        ),
        (
            {"KubernetesExecuter": {}},
            "executor_config: unknown key 'KubernetesExecuter'; did you mean 'KubernetesExecutor'?",
        ),
        ({"zzz": 1}, "executor_config: unknown key 'zzz'"),
        ({1: 1}, "executor_config: unknown key 1"),
        (
            {"image": "a", "KubernetesExecutor": {"image": "b"}},
            "executor_config: 'image' stands both at top level and under 'KubernetesExecutor'",
        ),
        ({"KubernetesExecutor": []}, "KubernetesExecutor must be an object, not list"),
        ([], "executor_config must be an object, not list"),
    ],
)
def test_a_wrong_key_is_named(config, message):
    with pytest.raises(ExecutorConfigError) as caught:
        KubernetesExecutorConfig.from_dict(config)
    assert str(caught.value) == message


def test_a_self_reference_is_refused():
    loop: dict[str, object] = {}
    loop["again"] = loop
    with pytest.raises(ExecutorConfigError, match="nested more than 64 levels deep"):
        KubernetesExecutorConfig(affinity=loop)


@pytest.mark.parametrize("quantity", ["1", "0.5", ".5", "1.", "512Mi", "1e9", "1E3", "1E", "100m"])
def test_quantities(quantity):
    read = KubernetesExecutorConfig(request_memory=quantity, request_cpu=quantity)
    assert read.to_pod_patch()["spec"]["containers"][0]["resources"] == {
        "requests": {"memory": quantity, "cpu": quantity}
    }


@pytest.mark.parametrize("text", ["a: [", "a: 1\n---\nb: 2", "spec: {a: !!python/name:os.x }"])
def test_pod_override_that_is_no_yaml_of_one_pod(text):
    with pytest.raises(ExecutorConfigError) as caught:
        KubernetesExecutorConfig(pod_override=text)
    message = str(caught.value)
    assert message.startswith("executor_config: pod_override is not YAML of one Pod: ")
    assert "\n" not in message


def test_pod_override_as_yaml():
    read = KubernetesExecutorConfig(pod_override="spec: {hostNetwork: true}")
    assert read.pod_override == {"spec": {"hostNetwork": True}}


def test_repr_names_what_is_stated_without_secrets():
    read = KubernetesExecutorConfig(image="x", env={"TOKEN": "s3cret"}, pod_override={"spec": {}})
    assert repr(read) == "KubernetesExecutorConfig(image='x', env=…, pod_override=…)"


def test_pod_patch():
    # How a key is mounted has tests of its own.
    stated = {name: value for name, value in EVERYTHING.items() if "gcp" not in name}
    assert KubernetesExecutorConfig.from_dict(stated).to_pod_patch() == {
        "metadata": {
            "labels": {"team": "data"},
            "annotations": {"example.com/note": "any ünicode"},
        },
        "spec": {
            "volumes": [{"name": "data", "emptyDir": {}, "$retainKeys": ["name", "emptyDir"]}],
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "nodeSelector": {"disk": "ssd"},
            "serviceAccountName": "runner.x",
            "activeDeadlineSeconds": 3600,
            "containers": [
                {
                    "name": "base",
                    "image": "repo/image:1",
                    "imagePullPolicy": "Always",
                    "resources": {
                        "requests": {"memory": "512Mi", "cpu": "0.5"},
                        "limits": {"memory": "1Gi", "cpu": "2"},
                    },
                    "env": [
                        {"name": "A", "value": "1", "$retainKeys": ["name", "value"]},
                        {"name": "B", "value": "", "$retainKeys": ["name", "value"]},
                    ],
                    "volumeMounts": [
                        {
                            "name": "data",
                            "mountPath": "/data",
                            "$retainKeys": ["name", "mountPath"],
                        }
                    ],
                }
            ],
        },
    }
