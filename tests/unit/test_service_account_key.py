"""Which keys the configuration names, and how a pod gets one."""

from __future__ import annotations

import pytest

from kbroker.errors import ConfigError
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.kube_config import KubeConfig
from kbroker.service_account_key import ServiceAccountKey, read_keys

NAME = "kubernetes.gcp_service_account_keys"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {}),
        ("  ,, ", {}),
        ("gcp-key=/keys/a.json", {"gcp-key": "/keys/a.json"}),
        (" a = /x/a.json , b=rel/b.json,", {"a": "/x/a.json", "b": "rel/b.json"}),
        ("a=/x/with=equals", {"a": "/x/with=equals"}),
        ("a.b-c=/x", {"a.b-c": "/x"}),
    ],
)
def test_the_keys_that_a_setting_names(text, keys):
    found = read_keys(text)
    assert found == {name: ServiceAccountKey(name, path) for name, path in keys.items()}
    assert KubeConfig.from_values(**{NAME: text}).kubernetes.gcp_service_account_keys == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gcp-key", "must be name=path,…; 'gcp-key' is not name=path"),
        ("a=/x,b=", "must be name=path,…; 'b=' is not name=path"),
        ("=/x", "'' cannot name a Secret: lower case letters, digits, inner '-' and '.'"),
        ("My_Key=/x", "'My_Key' cannot name a Secret: lower case letters, digits, inner '-'"),
        ("a=/x,a=/y", "'a' is named twice"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_source(text, problem):
    with pytest.raises(ConfigError) as caught:
        KubeConfig.from_values(**{NAME: text})
    assert str(caught.value).startswith(f"argument {NAME}: {NAME} = {text!r}: {problem}")


def patch(**config):
    return KubernetesExecutorConfig(gcp_service_account_key="gcp-key", **config).to_pod_patch()


def test_a_pod_gets_the_key_where_googles_libraries_look():
    spec = patch()["spec"]
    (volume,) = spec["volumes"]
    assert volume["secret"] == {"secretName": "gcp-key"}
    (container,) = spec["containers"]
    (mount,) = container["volumeMounts"]
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (
        volume["name"],
        "/var/secrets/google",
        True,
    )
    (variable,) = container["env"]
    assert variable["name"] == "GOOGLE_APPLICATION_CREDENTIALS"
    assert variable["value"] == "/var/secrets/google/key.json"


def test_what_the_task_says_itself_wins():
    own = {"GOOGLE_APPLICATION_CREDENTIALS": "/elsewhere.json", "X": "1"}
    (container,) = patch(env=own)["spec"]["containers"]
    assert {e["name"]: e["value"] for e in container["env"]} == own
    mine = {"name": "mine", "mountPath": "/var/secrets/google"}
    (container,) = patch(volume_mounts=[mine])["spec"]["containers"]
    assert [m["name"] for m in container["volumeMounts"]] == ["mine"]
    spec = patch(volumes=[{"name": "data", "emptyDir": {}}])["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["gcp-service-account-key", "data"]
