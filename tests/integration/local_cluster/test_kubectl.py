"""The real kubectl against the local cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.integration.local_cluster.client import Client, condition, pod, poll, state

KUBECTL = Path(sys.executable).with_name("kubectl")
Kubectl = Callable[..., str]


@pytest.fixture
def argv(client: Client) -> list[str]:
    return [str(KUBECTL), "--kubeconfig", str(client.cluster.kubeconfig), "-n", client.namespace]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """kubectl keeps what it discovers under HOME."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture
def kubectl(argv: list[str], env: dict[str, str]) -> Kubectl:
    def run(*words: str, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [*argv, *words],
            check=False,
            input=given,
            capture_output=True,
            text=True,
            timeout=20,
            env=env,
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    return run


def test_create_get_and_delete(kubectl: Kubectl, client: Client) -> None:
    assert kubectl("create", "-f", "-", given=yaml.safe_dump(pod("a", "sleep", "60"))) == (
        "pod/a created\n"
    )
    client.until("a", lambda p: condition(p, "Ready").get("status") == "True")
    header, row = kubectl("get", "pods").splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["a", "1/1", "Running", "0"]
    shown = yaml.safe_load(kubectl("get", "pod", "a", "-o", "yaml"))
    assert shown == client.pod("a")
    wide = kubectl("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split()[5:7] == ["IP", "NODE"]
    assert wide[1].split()[5:7] == ["127.0.0.1", shown["spec"]["nodeName"]]
    assert kubectl("delete", "pod", "a").startswith('pod "a" deleted')
    assert client.get("pods", "a").status == 404


def test_run_and_apply(kubectl: Kubectl, client: Client) -> None:
    assert kubectl("run", "a", "--image", "x", "--restart", "Never", "--command", "--", "true") == (
        "pod/a created\n"
    )
    client.phase("a", "Succeeded")
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    for value, said in (("1", "created"), ("1", "unchanged"), ("2", "configured")):
        given = yaml.safe_dump({**manifest, "data": {"x": value}})
        assert kubectl("apply", "-f", "-", given=given) == f"configmap/c {said}\n"
    assert client.get("configmaps", "c").json["data"] == {"x": "2"}


def test_what_the_server_refuses(kubectl: Kubectl) -> None:
    assert kubectl("get", "pod", "none", code=1) == (
        'Error from server (NotFound): pods "none" not found\n'
    )
    said = kubectl("create", "-f", "-", given=yaml.safe_dump(pod("Bad")), code=1)
    assert 'The Pod "Bad" is invalid: metadata.name: Invalid value: "Bad"' in said


def test_selectors_labels_and_json(kubectl: Kubectl, client: Client) -> None:
    client.create(pod("a", labels={"x": "1"}))
    client.create(pod("b", labels={"x": "2"}))
    assert kubectl("get", "pods", "-l", "x in (2,3)", "-o", "name") == "pod/b\n"
    kubectl("label", "pod", "a", "y=z")
    assert kubectl("get", "po", "-l", "y=z", "-o", "name") == "pod/a\n"
    listed = json.loads(kubectl("get", "pods", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("done", pod("done"), "Completed"),
        ("bad", pod("bad", "sh", "-c", "exit 1"), "Error"),
        ("pull", pod("pull", image="registry.invalid/x"), "ImagePullBackOff"),
        ("nothing", pod("nothing", "/no/such/program"), "StartError"),
        ("unfit", pod("unfit", nodeSelector={"a": "b"}), "Pending"),
    ],
)
def test_status_column(
    kubectl: Kubectl, client: Client, name: str, content: dict[str, object], word: str
) -> None:
    client.create(content)
    poll(word, lambda: kubectl("get", "pods", "--no-headers").split()[2] == word)


def test_watching(argv: list[str], env: dict[str, str], client: Client) -> None:
    with subprocess.Popen(
        [*argv, "get", "pods", "-w", "--no-headers"], stdout=subprocess.PIPE, text=True, env=env
    ) as watching:
        assert watching.stdout
        try:
            time.sleep(0.5)  # its list comes first; either way the end is the same
            client.create(pod("a"))
            words = []
            for line in watching.stdout:
                words.append(line.split()[2])
                if words[-1] == "Completed":
                    break
        finally:
            watching.send_signal(signal.SIGINT)
    assert words[-1] == "Completed"
    assert set(words) <= {"Pending", "ContainerCreating", "Running", "Completed"}


def test_logs(kubectl: Kubectl, client: Client) -> None:
    client.create(pod("a", "sh", "-c", "echo one; sleep 0.5; echo two"))
    poll("it runs", lambda: client.log("a").status == 200)
    assert kubectl("logs", "-f", "a") == "one\ntwo\n"
    assert kubectl("logs", "a", "--tail", "1") == "two\n"
    assert re.fullmatch(r"\d{4}-\S+Z two\n", kubectl("logs", "a", "--tail", "1", "--timestamps"))


def test_events_and_description(kubectl: Kubectl, client: Client) -> None:
    client.create(pod("a", image="registry.invalid/x"))
    client.until("a", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff")
    assert "Back-off pulling image" in kubectl("get", "events")
    described = kubectl("describe", "pod", "a")
    assert "Failed to pull image" in described
    assert re.search(r"Reason:\s+ImagePullBackOff", described)


def test_waiting_for_a_condition(kubectl: Kubectl, client: Client) -> None:
    client.create(pod("a", "sh", "-c", "sleep 0.3"))
    kubectl("wait", "pod/a", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=10s")


def test_cluster(kubectl: Kubectl) -> None:
    assert "local" in kubectl("get", "nodes")
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert "v1.36" in kubectl("version")
    assert kubectl("api-resources", "-o", "name").split()[0]
    assert "default" in kubectl("get", "namespaces")


def test_wait_until_deleted(kubectl: Kubectl, client: Client) -> None:
    client.create(pod("a", "sleep", "60", terminationGracePeriodSeconds=1))
    kubectl("delete", "pod", "a", "--wait=false")
    assert kubectl("wait", "--for=delete", "pod/a", "--timeout=15s") in (
        "",
        "pod/a condition met\n",
    )
    assert client.items() == []


def test_label_annotate_and_every_kind_of_patch(kubectl: Kubectl, client: Client) -> None:
    client.unscheduled("a")
    assert kubectl("label", "pod", "a", "team=data") == "pod/a labeled\n"
    assert kubectl("annotate", "pod", "a", "note=x y") == "pod/a annotated\n"
    for kind, patch in {
        "merge": '{"metadata": {"labels": {"merge": "1"}}}',
        "json": '[{"op": "add", "path": "/metadata/labels/json", "value": "1"}]',
        "strategic": '{"spec": {"containers": [{"name": "base", "image": "other"}]}}',
    }.items():
        assert kubectl("patch", "pod", "a", "--type", kind, "-p", patch) == "pod/a patched\n"
    after = client.pod("a")
    assert after["metadata"]["labels"] == {"team": "data", "merge": "1", "json": "1"}
    assert after["metadata"]["annotations"] == {"note": "x y"}
    assert after["spec"]["containers"][0]["image"] == "other"
    assert kubectl("label", "pod", "a", "team-") == "pod/a unlabeled\n"


def test_what_kubectl_makes_itself(kubectl: Kubectl, client: Client) -> None:
    """It sends these as protobuf."""
    kubectl("create", "secret", "generic", "s", "--from-literal=k=hush")
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.k}") == "aHVzaA=="
    kubectl("create", "configmap", "c", "--from-literal=k=v")
    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.k}") == "v"
    kubectl("create", "quota", "q", "--hard=pods=1")
    client.unscheduled("a")
    told = kubectl("create", "-f", "-", given=yaml.safe_dump(pod("b")), code=1)
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in told
    assert re.search(r"^pods +1 +1$", kubectl("describe", "quota", "q"), re.MULTILINE)
    client.delete("a", {"gracePeriodSeconds": 0})
    assert kubectl("get", "quota", "q", "-o", "jsonpath={.status.used.pods}") == "0"


def test_roles_bindings_and_tokens(kubectl: Kubectl, client: Client) -> None:
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods,pods/log")
    robot = f"system:serviceaccount:{client.namespace}:robot"
    assert kubectl("auth", "can-i", "list", "pods", "--as", robot, code=1) == ""
    where = f"--serviceaccount={client.namespace}:robot"
    kubectl("create", "rolebinding", "robot-reads", "--role=reader", where)
    assert kubectl("auth", "can-i", "list", "pods", "--as", robot) == "yes\n"
    kubectl("auth", "can-i", "create", "pods", "--as", robot, code=1)
    assert "pods/log" in kubectl("auth", "can-i", "--list", "--as", robot)
    token = kubectl("create", "token", "robot").strip()
    as_robot = Client(client.cluster, client.namespace, token)
    assert as_robot.items() == []
    refused = as_robot.refused(pod("a"))
    assert refused.status == 403
    assert refused.message == (
        f'pods is forbidden: User "{robot}" cannot create resource "pods" in API group "" in the '
        f'namespace "{client.namespace}"'
    )
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    kubectl("delete", "serviceaccount", "robot")
    assert as_robot.get("pods").status == 401


def test_what_there_is(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "-o", "name").split()
    assert {"pods", "roles.rbac.authorization.k8s.io"} <= set(resources)
    assert "v1" in kubectl("api-versions").split()
    policy = "validatingadmissionpolicy/kbroker-create-before"
    assert kubectl("get", policy, "-o", "name").endswith(f"{policy.partition('/')[2]}\n")
    assert "default" in kubectl("get", "serviceaccounts", "-o", "name")
