"""Volumes, as a container's process finds them at their mount paths."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client, Object, condition, pod, poll, state


def shell(
    name: str, script: str, volumes: list[Object], mounts: list[Object], **more: Any
) -> Object:
    """A pod whose container `base` runs a shell script with volumes."""
    container = {"volumeMounts": mounts, **more.pop("container", {})}
    return pod(name, "sh", "-c", script, volumes=volumes, container=container, **more)


def mount(name: str, path: str, **more: Any) -> Object:
    return {"name": name, "mountPath": path, **more}


def output(client: Client, name: str, container: str = "") -> str:
    """What a pod said, once it has succeeded."""
    client.until(name, lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    return client.log(name, container=container).body.decode()


@pytest.fixture
def supplies(client: Client) -> None:
    """A config map and a secret."""
    client.create(
        {
            "metadata": {"name": "conf"},
            "data": {"a.ini": "x = 1\n", "b.ini": "y\n"},
            "binaryData": {"raw": base64.b64encode(b"bytes").decode()},
        },
        "configmaps",
    )
    client.create({"metadata": {"name": "key"}, "stringData": {"id_rsa": "private"}}, "secrets")


@pytest.mark.usefixtures("supplies")
def test_each_kind(client: Client, tmp_path: Path) -> None:
    """All in one pod; no mount path is there on the machine."""
    (tmp_path / "given").write_text("from the machine\n")
    fields = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.annotations"}},
        {"path": "who/name", "fieldRef": {"fieldPath": "metadata.name"}},
        {
            "path": "memory",
            "resourceFieldRef": {
                "containerName": "base",
                "resource": "limits.memory",
                "divisor": "1Mi",
            },
        },
    ]
    volumes = [
        {"name": "empty", "emptyDir": {}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {
            "name": "key",
            "secret": {
                "secretName": "key",
                "defaultMode": 0o400,
                "items": [{"key": "id_rsa", "path": "ssh/id"}],
            },
        },
        {"name": "self", "downwardAPI": {"items": fields}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "conf", "items": [{"key": "raw", "path": "r"}]}},
                    {"secret": {"name": "key"}},
                    {"downwardAPI": {"items": fields[1:2]}},
                ]
            },
        },
        {"name": "none", "configMap": {"name": "absent", "optional": True}},
        {"name": "host", "hostPath": {"path": str(tmp_path), "type": "Directory"}},
    ]
    mounts = [
        mount("empty", "/kb-empty"),
        mount("conf", "/etc/kb/conf"),
        mount("conf", "/etc/kb/one.ini", subPath="b.ini"),
        mount("key", "/etc/kb/key"),
        mount("self", "/kb-self"),
        mount("all", "/kb-all"),
        mount("none", "/kb-empty/none"),
        mount("host", "/kb-host"),
        mount("host", "/kb-read", readOnly=True),
    ]
    steps = [
        "cat /etc/kb/conf/a.ini /etc/kb/one.ini /etc/kb/key/ssh/id",
        "echo; stat -c %a /etc/kb/key/ssh/id",
        "cat /kb-self/labels; echo; cat /kb-self/who/name /kb-self/memory; echo",
        "cat /kb-all/r /kb-all/id_rsa /kb-all/who/name; echo",
        "ls /kb-empty /kb-empty/none; cat /kb-host/given",
        "echo back > /kb-host/back; echo x > /kb-empty/x && cat /kb-empty/x",
        "touch /etc/kb/conf/no /kb-read/no 2>/dev/null || echo read-only",
        "test -e /etc/passwd && id -u && pwd",
    ]
    content = shell(
        "a",
        "\n".join(steps),
        volumes,
        mounts,
        annotations={"app": 'q"uote'},
        container={"workingDir": "/kb-empty", "resources": {"limits": {"memory": "64Mi"}}},
    )
    client.create(content)
    assert output(client, "a").splitlines() == [
        "x = 1",
        "y",
        "private",
        "400",
        'app="q\\"uote"',
        "a64",
        "bytesprivatea",
        "/kb-empty:",
        "none",
        "",
        "/kb-empty/none:",
        "from the machine",
        "x",
        "read-only",
        str(tmp_path.owner() and tmp_path.stat().st_uid),
        "/kb-empty",
    ]
    assert (tmp_path / "back").read_text() == "back\n"
    assert not any(Path(m["mountPath"]).exists() for m in mounts)


def test_shared_by_the_pods_containers_and_gone_with_it(
    client: Client, cluster: LocalCluster
) -> None:
    share = [mount("empty", "/kb-share")]
    content = shell(
        "a",
        "until test -e /kb-share/side; do sleep 0.05; done; cat /kb-share/*",
        [{"name": "empty", "emptyDir": {}}],
        share,
        initContainers=[
            {
                "name": "first",
                "image": "x",
                "command": ["sh", "-c", "echo first > /kb-share/first"],
                "volumeMounts": share,
            }
        ],
    )
    content["spec"]["containers"].append(
        {
            "name": "side",
            "image": "x",
            "command": ["sh", "-c", "echo side > /kb-share/.s; mv /kb-share/.s /kb-share/side"],
            "volumeMounts": share,
        }
    )
    client.create(content)
    assert output(client, "a", "base") == "first\nside\n"
    left = cluster.logs / client.namespace / "a"

    def names() -> set[str]:
        """Everything below; what goes while we look is left out."""
        return {name for _, folders, files in os.walk(left) for name in (*folders, *files)}

    poll("the volume is gone", lambda: not names() & {"first", ".volumes"})


@pytest.mark.parametrize(
    ("volume", "resource", "missing", "said"),
    [
        (
            {"configMap": {"name": "late"}},
            "configmaps",
            {"data": {"k": "v"}},
            'MountVolume.SetUp failed for volume "vol" : configmap "late" not found',
        ),
        (
            {"secret": {"secretName": "late"}},
            "secrets",
            {"stringData": {"k": "v"}},
            'MountVolume.SetUp failed for volume "vol" : secret "late" not found',
        ),
    ],
)
def test_starts_once_what_is_missing_appears(
    client: Client, volume: Object, resource: str, missing: Object, said: str
) -> None:
    mounts = [mount("vol", "/kb-late")]
    client.create(shell("a", "cat /kb-late/k", [{"name": "vol", **volume}], mounts))

    def failed() -> list[Object]:
        events = client.get("events").json["items"]
        return [event for event in events if event["reason"] == "FailedMount"]

    event = poll("it is said", failed)[0]
    assert (event["type"], event["message"]) == ("Warning", said)
    found = client.pod("a")
    assert state(found) == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(found, "PodReadyToStartContainers")["status"] == "False"
    poll("it is counted", lambda: failed()[0]["count"] > 1)
    client.create({"metadata": {"name": "late"}, **missing}, resource)
    assert output(client, "a") == "v"


def test_what_cannot_be_mounted(client: Client) -> None:
    claim = {"name": "vol", "persistentVolumeClaim": {"claimName": "x"}}
    client.create(shell("a", "true", [claim], [mount("vol", "/kb-claim")]))
    poll(
        "it is said",
        lambda: any(
            "persistentVolumeClaim volumes are not supported" in event["message"]
            for event in client.get("events").json["items"]
        ),
    )
    assert client.delete("a").status == 200
    poll("it is gone", lambda: client.get("pods", "a").status == 404)


def test_a_volume_that_covers_the_containers_own_folder(
    client: Client, cluster: LocalCluster
) -> None:
    top = "/" + cluster.folder.parts[1]
    script = f"echo x > $HOME/y; cat y; ls {top} | wc -l"
    volumes, mounts = [{"name": "empty", "emptyDir": {}}], [mount("empty", top)]
    client.create(shell("a", script, volumes, mounts))
    assert output(client, "a").split() == ["x", "1"]


def test_where_nothing_can_be_mounted(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, no_mounts=True) as cluster:
        client = Client(cluster)
        client.create({"metadata": {"name": "conf"}, "data": {"k": "v\n"}}, "configmaps")
        mounts = [mount("conf", "/kb/conf")]
        content = shell(
            "a",
            "cat /kb/conf/k $FILE; echo /kb/config; pwd",
            [{"name": "conf", "configMap": {"name": "conf"}}],
            mounts,
            container={"env": [{"name": "FILE", "value": "/kb/conf/k"}], "workingDir": "/kb/conf"},
        )
        client.create(content)
        said = output(client, "a").split()
        assert said[:3] == ["v", "v", "/kb/config"]
        assert said[3].endswith("/.volumes/conf")
        assert "no mount namespaces" in cluster.log.read_text()
