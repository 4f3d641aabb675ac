"""What the node makes of a pod: scheduling, processes, statuses, deadlines, deletion, logs."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client, Object, condition, pod, poll, state

ENDED = ("Succeeded", "Failed")


def shell(name: str, script: str, **spec: Any) -> Object:
    """A pod that runs a shell script."""
    return pod(name, "sh", "-c", script, **spec)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestOutcome:
    def test_success(self, client: Client) -> None:
        client.create(shell("a", "echo done"))
        found = client.phase("a", *ENDED)
        status = found["status"]
        assert status["phase"] == "Succeeded"
        assert found["spec"]["nodeName"]
        ended = state(found)["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
        assert ended["startedAt"] <= ended["finishedAt"]
        container = status["containerStatuses"][0]
        assert container["containerID"]
        assert container["image"] == "busybox"
        assert container["restartCount"] == 0
        assert container["ready"] is False
        assert status["podIP"] == status["hostIP"] == "127.0.0.1"
        assert status["startTime"]
        assert status["qosClass"] == "BestEffort"
        expected = {
            "PodScheduled": ("True", None),
            "Initialized": ("True", "PodCompleted"),
            "ContainersReady": ("False", "PodCompleted"),
            "Ready": ("False", "PodCompleted"),
        }
        for kind, (word, reason) in expected.items():
            assert condition(found, kind)["status"] == word
            assert condition(found, kind).get("reason") == reason, kind

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 3", 3), ("kill -9 $$$$", 137), ("kill -15 $$$$", 143)]
    )
    def test_failure(self, client: Client, script: str, code: int) -> None:
        client.create(shell("a", script))
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Failed"
        ended = state(found)["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (code, "Error")

    def test_command_that_is_not_there(self, client: Client) -> None:
        client.create(pod("a", "/no/such/program"))
        ended = state(client.phase("a", *ENDED))["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert "/no/such/program" in ended["message"]
        assert ended["startedAt"] == "1970-01-01T00:00:00Z"

    def test_no_command(self, client: Client) -> None:
        client.create(pod("a", container={"command": [], "args": []}))
        found = client.until("a", lambda p: state(p).get("waiting", {}).get("message"))
        waiting = state(found)["waiting"]
        assert waiting["reason"] == "CreateContainerError"
        assert "no command specified" in waiting["message"]
        assert found["status"]["phase"] == "Pending"

    def test_running(self, client: Client) -> None:
        client.create(pod("a", "sleep", "60"))
        found = client.until("a", lambda p: condition(p, "Ready").get("status") == "True")
        assert found["status"]["phase"] == "Running"
        assert state(found)["running"]["startedAt"]
        container = found["status"]["containerStatuses"][0]
        assert container["ready"] is container["started"] is True

    def test_image_that_cannot_be_pulled(self, client: Client) -> None:
        client.create(pod("a", image="registry.invalid/nothing:1"))
        found = client.until(
            "a", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff"
        )
        assert "registry.invalid/nothing:1" in state(found)["waiting"]["message"]
        assert found["status"]["phase"] == "Pending"
        assert "started" in found["status"]["containerStatuses"][0]
        client.create(
            pod("b", image="registry.invalid/nothing:1", container={"imagePullPolicy": "Never"})
        )
        client.phase("b", "Succeeded")


class TestEnvironment:
    def test_variables(self, client: Client) -> None:
        def field(name: str, path: str) -> Object:
            return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

        env = [
            {"name": "PLAIN", "value": "größe"},
            {"name": "TWICE", "value": "$(PLAIN)-$$(PLAIN)-$(NONE)"},
            field("NAME", "metadata.name"),
            field("WHERE", "metadata.namespace"),
            field("UID_", "metadata.uid"),
            field("LABEL", "metadata.labels['color']"),
            field("NOTE", "metadata.annotations['note']"),
            field("NODE", "spec.nodeName"),
            field("IP", "status.podIP"),
        ]
        client.create(
            shell(
                "a",
                'echo "$PLAIN $TWICE $NAME $WHERE $UID_ $LABEL $NOTE $NODE $IP $HOSTNAME $0 $1"',
                labels={"color": "red"},
                annotations={"note": "x y"},
                container={"env": env, "args": ["$(NAME)", "last"]},
            )
        )
        found = client.phase("a", *ENDED)
        assert client.log("a").body.decode() == (
            f"größe größe-$(PLAIN)-$(NONE) a {client.namespace} {found['metadata']['uid']} red "
            f"x y {found['spec']['nodeName']} 127.0.0.1 a a last\n"
        )

    def test_nothing_of_the_servers_environment(self, client: Client) -> None:
        client.create(shell("a", "env | cut -d= -f1 | sort"))
        client.phase("a", *ENDED)
        names = set(client.log("a").body.decode().split())
        assert names <= {"HOME", "HOSTNAME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}

    def test_secrets_and_config_maps(self, client: Client) -> None:
        client.create({"metadata": {"name": "s"}, "data": {"key": "c2VjcmV0"}}, "secrets")
        client.create({"metadata": {"name": "t"}, "stringData": {"word": "open"}}, "secrets")
        client.create({"metadata": {"name": "c"}, "data": {"LEVEL": "debug"}}, "configmaps")
        env = [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "T", "valueFrom": {"secretKeyRef": {"name": "t", "key": "word"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "LEVEL"}}},
            {
                "name": "O",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": True}},
            },
        ]
        source = [{"prefix": "X_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]
        client.create(
            shell(
                "a",
                'echo "$S $T $C ${O-unset} $X_LEVEL $key"',
                container={"env": env, "envFrom": source},
            )
        )
        client.phase("a", *ENDED)
        assert client.log("a").body == b"secret open debug unset debug secret\n"

    def test_missing_secret(self, client: Client) -> None:
        env = [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "none", "key": "key"}}}]
        client.create(shell("a", "true", container={"env": env}))
        found = client.until("a", lambda p: state(p).get("waiting", {}).get("message"))
        waiting = state(found)["waiting"]
        assert (waiting["reason"], waiting["message"]) == (
            "CreateContainerConfigError",
            'secret "none" not found',
        )
        client.create({"metadata": {"name": "none"}, "data": {"key": "eA=="}}, "secrets")
        client.phase("a", "Succeeded")

    def test_working_folder(self, client: Client, tmp_path: Path) -> None:
        client.create(shell("own", "pwd; echo $HOME"))
        client.create(shell("given", "pwd", container={"workingDir": str(tmp_path)}))
        for name in ("own", "given"):
            client.phase(name, "Succeeded")
        own, home = client.log("own").body.decode().split()
        assert own == home
        assert client.log("given").body.decode().strip() == str(tmp_path)


class TestSeveralContainers:
    def test_init_containers_run_in_order_before(self, client: Client, tmp_path: Path) -> None:
        def step(name: str) -> Object:
            script = f"echo {name} >> {tmp_path}/order"
            return {"name": name, "image": "x", "command": ["sh", "-c", script]}

        content = pod("a", initContainers=[step("one"), step("two")])
        content["spec"]["containers"] = [step("base")]
        client.create(content)
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Succeeded"
        assert (tmp_path / "order").read_text().split() == ["one", "two", "base"]
        assert condition(found, "Initialized")["status"] == "True"

    def test_failed_init_container(self, client: Client) -> None:
        init = {"name": "first", "image": "x", "command": ["sh", "-c", "exit 4"]}
        client.create(pod("a", initContainers=[init]))
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Failed"
        assert state(found, "first")["terminated"]["exitCode"] == 4
        assert state(found) == {"waiting": {"reason": "PodInitializing"}}
        assert condition(found, "Initialized")["status"] == "False"

    def test_containers_run_side_by_side(self, client: Client) -> None:
        content = shell("a", "exit 0")
        content["spec"]["containers"].append(
            {"name": "side", "image": "x", "command": ["sh", "-c", "sleep 0.3; exit 5"]}
        )
        client.create(content)
        found = client.until("a", lambda p: "terminated" in state(p))
        assert found["status"]["phase"] == "Running"
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Failed"
        assert state(found, "side")["terminated"]["exitCode"] == 5


class TestRestarts:
    def test_on_failure_until_it_succeeds(self, client: Client, tmp_path: Path) -> None:
        script = f"echo x >> {tmp_path}/runs; test $(wc -l < {tmp_path}/runs) -ge 2"
        client.create(shell("a", script, restartPolicy="OnFailure"))
        found = client.phase("a", *ENDED)
        assert found["status"]["phase"] == "Succeeded"
        container = found["status"]["containerStatuses"][0]
        assert container["restartCount"] == 1
        assert container["lastState"]["terminated"]["exitCode"] == 1

    def test_always_backs_off(self, client: Client) -> None:
        client.create(shell("a", "exit 0", restartPolicy="Always"))
        found = client.until(
            "a",
            lambda p: (
                p["status"].get("containerStatuses", [{}])[0].get("restartCount", 0) > 0
                and state(p).get("waiting", {}).get("reason") == "CrashLoopBackOff"
            ),
        )
        assert found["status"]["phase"] == "Running"


class TestScheduling:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"nodeSelector": {"disk": "fast"}}, "didn't match Pod's node affinity/selector"),
        ],
    )
    def test_no_node(self, client: Client, spec: Object, message: str) -> None:
        client.create(pod("a", **spec))
        found = client.until("a", lambda p: condition(p, "PodScheduled"))
        scheduled = condition(found, "PodScheduled")
        assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
        assert scheduled["message"].startswith("0/1 nodes are available: ")
        assert message in scheduled["message"]
        assert found["status"]["phase"] == "Pending"
        assert "nodeName" not in found["spec"]

    def test_full_node_takes_the_next_pod_when_one_ends(self, tmp_path: Path) -> None:
        with LocalCluster(tmp_path, max_pods=2) as small:
            client = Client(small)
            for name in ("a", "b", "c"):
                client.create(pod(name, "sleep", "60", terminationGracePeriodSeconds=1))
            found = client.until("c", lambda p: condition(p, "PodScheduled"))
            assert "1 Too many pods" in condition(found, "PodScheduled")["message"]
            client.delete("a")
            client.phase("c", "Running")

    def test_node_selector_that_matches(self, client: Client) -> None:
        labels = client.call("GET", "/api/v1/nodes").json["items"][0]["metadata"]["labels"]
        client.create(pod("a", nodeSelector=labels))
        client.phase("a", "Succeeded")


def test_deadlines(client: Client) -> None:
    """All at once, because deadlines are whole seconds."""
    stubborn = "trap '' TERM; while :; do sleep 0.05; done"
    soon = {"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1}
    client.create(pod("given", "sleep", "60", **soon))
    client.create(shell("stubborn", stubborn, **soon))
    client.create(pod("patched", "sleep", "60"))
    client.create(pod("unstarted", image="registry.invalid/x"))
    client.create(pod("ended", **soon))
    client.phase("patched", "Running")
    client.until("unstarted", lambda p: state(p).get("waiting"))
    for name in ("patched", "unstarted"):
        assert client.patch(name, {"spec": {"activeDeadlineSeconds": 1}}).status == 200
    found = {name: client.phase(name, *ENDED) for name in client.items()}
    assert found["ended"]["status"]["phase"] == "Succeeded"
    for name in ("given", "stubborn", "patched", "unstarted"):
        status = found[name]["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded"), name
        assert status["message"] == (
            "Pod was active on the node longer than the specified deadline"
        )
    for name, code in (("given", 143), ("patched", 143), ("stubborn", 137)):
        assert state(found[name])["terminated"]["exitCode"] == code
    assert state(found["unstarted"])["terminated"]["reason"] == "ContainerStatusUnknown"
    assert not found["unstarted"]["status"]["containerStatuses"][0].get("containerID")


class TestDeletion:
    def test_two_steps(self, client: Client) -> None:
        trap = "trap 'sleep 0.3; exit 0' TERM; echo up; while :; do sleep 0.05; done"
        client.create(shell("a", trap))
        poll("it traps", lambda: client.log("a").body == b"up\n")
        version = client.get("pods").json["metadata"]["resourceVersion"]
        with client.watch(resourceVersion=version) as watch:
            answer = client.delete("a")
            assert answer.status == 200
            assert answer.json["metadata"]["deletionGracePeriodSeconds"] == 30
            assert (
                answer.json["metadata"]["deletionTimestamp"]
                > answer.json["metadata"]["creationTimestamp"]
            )
            first = watch.events(1)[0]
            assert first["type"] == "MODIFIED"
            assert first["object"]["metadata"]["deletionTimestamp"]
            last = watch.until("DELETED")
        assert state(last)["terminated"]["exitCode"] == 0
        assert client.get("pods", "a").status == 404

    def test_killed_after_its_grace_period(self, client: Client) -> None:
        trap = "trap '' TERM; echo up; while :; do sleep 0.05; done"
        client.create(shell("a", trap))
        poll("it traps", lambda: client.log("a").body == b"up\n")
        version = client.get("pods").json["metadata"]["resourceVersion"]
        began = time.monotonic()
        with client.watch(resourceVersion=version) as watch:
            client.delete("a", {"gracePeriodSeconds": 1})
            last = watch.until("DELETED")
        assert 0.9 < time.monotonic() - began < 5
        assert state(last)["terminated"]["exitCode"] == 137

    def test_at_once_without_grace(self, client: Client, tmp_path: Path) -> None:
        client.create(shell("a", f"trap '' TERM; echo $$$$ > {tmp_path}/pid; sleep 60"))
        pid = int(poll("it runs", lambda: (tmp_path / "pid").exists() and _read(tmp_path / "pid")))
        assert client.delete("a", {"gracePeriodSeconds": 0}).status == 200
        assert client.get("pods", "a").status == 404
        poll("its process is killed", lambda: not alive(pid))

    def test_before_a_container_started(self, client: Client) -> None:
        client.create(pod("a", image="registry.invalid/x"))
        client.until("a", lambda p: state(p).get("waiting", {}).get("reason") == "ErrImagePull")
        version = client.get("pods").json["metadata"]["resourceVersion"]
        with client.watch(resourceVersion=version) as watch:
            client.delete("a")
            last = watch.until("DELETED")
        assert state(last)["terminated"]["reason"] == "ContainerStatusUnknown"
        assert not last["status"]["containerStatuses"][0].get("containerID")

    def test_shorter_grace_period_at_the_second_attempt(self, client: Client) -> None:
        client.create(shell("a", "trap '' TERM; echo up; while :; do sleep 0.05; done"))
        poll("it traps", lambda: client.log("a").body == b"up\n")
        began = time.monotonic()
        assert client.delete("a").json["metadata"]["deletionGracePeriodSeconds"] == 30
        assert client.delete("a").json["metadata"]["deletionGracePeriodSeconds"] == 30
        second = client.delete("a", {"gracePeriodSeconds": 1})
        assert second.json["metadata"]["deletionGracePeriodSeconds"] == 1
        poll("it is gone", lambda: client.get("pods", "a").status == 404)
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize(
        "content", [pod("a"), pod("a", schedulerName="nobody")], ids=["finished", "unscheduled"]
    )
    def test_at_once_when_nothing_runs(self, client: Client, content: Object) -> None:
        client.create(content)
        client.until(
            "a",
            lambda p: p["status"]["phase"] in ENDED or p["spec"]["schedulerName"] == "nobody",
        )
        assert client.delete("a").status == 200
        assert client.get("pods", "a").status == 404

    def test_processes_left_behind_end_too(self, client: Client, tmp_path: Path) -> None:
        client.create(shell("a", f"sleep 60 & echo $! > {tmp_path}/pid; exit 0"))
        client.phase("a", "Succeeded")
        poll("it is killed", lambda: not alive(int((tmp_path / "pid").read_text())))

    @pytest.mark.parametrize("how", ["exit 0", "kill -9 $$$$", "sleep 60"])
    def test_also_in_groups_of_their_own(self, client: Client, tmp_path: Path, how: str) -> None:
        script, pids = tmp_path / "script.py", tmp_path / "pids"
        pids.touch()
        # A child and a grandchild, each in a process group of its own.
        script.write_text(
            "import os, sys, time\n"
            "for _ in range(2):\n"
            "    if os.fork():\n"
            "        break\n"
            "    os.setpgid(0, 0)\n"
            "    with open(sys.argv[1], 'a') as pids: print(os.getpid(), file=pids)\n"
            "time.sleep(60)\n"
        )
        start = f"{sys.executable} {script} {pids} &"
        client.create(
            shell("a", f"{start} until [ $(wc -l < {pids}) = 2 ]; do sleep 0.02; done; {how}")
        )
        poll("they run", lambda: len(pids.read_text().split()) == 2)
        if how == "sleep 60":
            assert all(alive(int(pid)) for pid in pids.read_text().split())
            client.delete("a", {"gracePeriodSeconds": 0})
        poll("they end", lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


class TestLogs:
    def test_both_streams(self, client: Client) -> None:
        client.create(shell("a", "echo out; echo err >&2; printf end"))
        client.phase("a", *ENDED)
        assert client.log("a").body == b"out\nerr\nend"

    def test_parts(self, client: Client) -> None:
        client.create(shell("a", "for n in 1 2 3 4; do echo line $n; done"))
        client.phase("a", *ENDED)
        assert client.log("a", tailLines=2).body == b"line 3\nline 4\n"
        assert client.log("a", tailLines=0).body == b""
        assert client.log("a", limitBytes=9).body == b"line 1\nli"
        assert client.log("a", sinceSeconds=3600).body.count(b"\n") == 4
        stamped = client.log("a", timestamps="true").body.decode().splitlines()
        for number, line in enumerate(stamped, 1):
            moment, _, text = line.partition(" ")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", moment)
            assert text == f"line {number}"

    def test_since(self, client: Client) -> None:
        client.create(shell("a", "echo early; sleep 2.2; echo late"))
        client.phase("a", *ENDED)
        assert client.log("a", sinceSeconds=1).body == b"late\n"
        moments = [
            datetime.fromisoformat(line.split()[0])
            for line in client.log("a", timestamps="true").body.decode().splitlines()
        ]
        assert (moments[1] - moments[0]).total_seconds() > 2

    def test_follows_to_the_end(self, client: Client) -> None:
        client.create(shell("a", "echo one; sleep 0.5; echo two"))
        poll("it runs", lambda: client.log("a").status == 200)
        assert client.log("a", follow="true").body == b"one\ntwo\n"

    def test_one_of_several_containers(self, client: Client) -> None:
        content = shell("a", "echo base")
        content["spec"]["containers"].append(
            {"name": "side", "image": "x", "command": ["echo", "side"]}
        )
        client.create(content)
        client.phase("a", *ENDED)
        assert client.log("a", container="side").body == b"side\n"
        refused = client.log("a")
        assert (refused.status, refused.message) == (
            400,
            "a container name must be specified for pod a, choose one of: [base side]",
        )
        assert client.log("a", container="none").message == (
            "container none is not valid for pod a"
        )

    def test_not_started_yet(self, client: Client) -> None:
        client.create(pod("a", image="registry.invalid/x"))
        client.until("a", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff")
        answer = client.log("a")
        assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
        assert answer.message == (
            'container "base" in pod "a" is waiting to start: trying and failing to pull image'
        )

    def test_previous_run(self, client: Client, tmp_path: Path) -> None:
        count = f"$(wc -l < {tmp_path}/runs)"
        script = f"echo x >> {tmp_path}/runs; echo run {count}; test {count} -ge 2"
        client.create(shell("a", script, restartPolicy="OnFailure"))
        client.phase("a", "Succeeded")
        assert client.log("a").body == b"run 2\n"
        assert client.log("a", previous="true").body == b"run 1\n"
        client.create(shell("b", "true"))
        client.phase("b", "Succeeded")
        answer = client.log("b", previous="true")
        assert (answer.status, answer.message) == (
            400,
            'previous terminated container "base" in pod "b" not found',
        )


def test_events_tell_the_story(client: Client) -> None:
    client.create(pod("a"))
    client.phase("a", "Succeeded")
    events = client.get("events", fieldSelector="involvedObject.name=a").json["items"]
    assert [event["reason"] for event in events] == ["Scheduled", "Pulled", "Created", "Started"]
    client.create(pod("b", image="registry.invalid/x"))
    client.until("b", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff")
    events = client.get("events", fieldSelector="involvedObject.name=b").json["items"]
    assert [event["reason"] for event in events] == [
        "Scheduled",
        "Pulling",
        "Failed",
        "Failed",
        "BackOff",
        "Failed",
    ]


def test_status_can_be_set_from_outside(client: Client) -> None:
    client.create(pod("a", "sleep", "60"))
    client.phase("a", "Running")
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    client.cluster.admin.post(f"/_local/pods/{client.namespace}/a/status", evicted)
    time.sleep(0.2)  # the node must not write over it
    status = client.pod("a")["status"]
    assert {name: status[name] for name in evicted} == evicted


def _read(path: Path) -> str:
    return path.read_text().strip() and path.read_text().strip()


def test_many_short_pods_end(client: Client) -> None:
    for n in range(60):
        client.create(pod(f"p{n}"))
    poll(
        "all have succeeded",
        lambda: len(client.items(fieldSelector="status.phase=Succeeded")) == 60,
        20,
    )
