"""Workloads in Secrets of the pods' own, from the executor to the task and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbroker.event import Cause
from kbroker.naming import STOPPED, pod_name
from kbroker.task import Launch
from kbroker.workload_file import WORKLOAD_FILE
from tests.integration.stack import Process, Run, Stack

WORD = "hush-hush"
SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"


class Deliveries(Run):
    """Tasks that copy what they find in their workload's file."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        super().__init__(stack, stack.executor())
        self.folder = folder
        self.launcher: Process = stack.launcher()

    def submit_with(self, task: str, workload: str, seconds: float = 0.1) -> None:
        """Want a task with this workload."""
        copied = f'cat {WORKLOAD_FILE} > "$0" && echo "start {task} $HOSTNAME" >> "$1"; sleep "$2"'
        command = ["sh", "-c", copied, str(self.found(task)), str(self.stack.ledger_path)]
        self.want(task, [*command, str(seconds)], workload=workload)

    def found(self, task: str) -> Path:
        """What the task copied."""
        return self.folder / task

    def pod(self, task: str, attempt: int = 1) -> str:
        """Name of a task's pod."""
        launch = Launch("kbroker", self.key(task), f"{self.name}-{task}")
        return pod_name(launch.attempt(attempt))

    def record(self, task: str) -> dict[bytes, bytes]:
        """A task's launch record."""
        launch = Launch("kbroker", self.key(task), f"{self.name}-{task}")
        return dict(self.stack.redis.hgetall(self.stack.keys.task(launch.digest)))

    def items(self, path: str) -> dict[str, Any]:
        """Objects by name."""
        items = self.stack.cluster.admin.get(path)["items"]
        return {item["metadata"]["name"]: item for item in items}

    def fault(self, task: str, action: dict[str, Any]) -> None:
        """What happens to creates of a task's Secrets."""
        match = {"verb": "create", "resource": "secrets", "name_prefix": f"dag-{task}-"}
        self.stack.cluster.admin.post("/_local/faults", {"match": match, "action": action})

    def until_final(self, task: str) -> tuple[str, Any]:
        """Beat until a task is final."""
        self.until(f"{task} is final", lambda: task in self.finals)
        ((state, outcome),) = self.finals[task]
        return state, outcome

    def everything_in_redis(self) -> list[Any]:
        """All keys and their values."""
        redis, seen = self.stack.redis, []
        for key in redis.keys("*"):
            kind = redis.type(key).decode()
            read: Any = {
                "string": redis.get,
                "hash": redis.hgetall,
                "zset": lambda k: redis.zrange(k, 0, -1),
                "set": redis.smembers,
                "stream": redis.xrange,
            }[kind]
            seen.append((key, read(key)))
        return seen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deliveries]:
    """All roles."""
    folder = tmp_path_factory.mktemp("found")
    settings = {"core__relaunch_limit": 1, "kubernetes__retry_budget": 1.0}
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        stack.watcher()
        stack.until_led()
        yield Deliveries(stack, folder)
        assert WORD not in stack.logs()  # of a log, the end


@pytest.fixture(autouse=True)
def _no_faults(run: Deliveries) -> Iterator[None]:
    yield
    run.stack.cluster.admin.delete("/_local/faults")


def shows(what: Any, workload: str) -> bool:
    """Whether a workload, plain or encoded, can be read in something."""
    encoded = base64.b64encode(workload.encode()).decode()
    return any(text in repr(what) for text in (WORD, encoded))


def test_a_task_finds_its_workload_and_nothing_else_has_it(run: Deliveries) -> None:
    workload = json.dumps({"token": WORD, "ä": "☀\n"})
    run.submit_with("plain", workload, seconds=1.0)
    name = run.pod("plain")
    run.until("it runs", lambda: run.found("plain").exists() and "running" in run.states["plain"])
    secret, pod = run.items(SECRETS)[name], run.items(PODS)[name]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert shows(secret, workload)
    assert not shows(pod, workload)
    assert not shows(run.record("plain"), workload)
    assert not shows(run.everything_in_redis(), workload)
    assert run.until_final("plain")[0] == "success"
    assert run.found("plain").read_text() == workload
    run.until("the pod has gone", lambda: name not in run.items(PODS))
    assert name not in run.items(SECRETS)


def test_a_launcher_killed_between_the_pod_and_its_secret(run: Deliveries) -> None:
    run.fault("killed", {"hold_ms": 60_000})
    run.submit_with("killed", WORD)
    name = run.pod("killed")
    run.until("its pod is known", lambda: run.record("killed").get(b"uid"))
    assert name not in run.items(SECRETS)
    run.launcher.kill()
    run.stack.cluster.admin.delete("/_local/faults")
    assert name not in run.items(SECRETS)
    run.launcher = run.stack.launcher()
    state, outcome = run.until_final("killed")
    assert (state, outcome.attempts) == ("success", 1)
    assert run.found("killed").read_text() == WORD
    assert run.stack.starts()["killed"] == 1


def test_a_secret_that_cannot_be_created_yet_is_waited_for(run: Deliveries) -> None:
    busy = {"status": 503, "reason": "ServiceUnavailable", "message": f"quoting {WORD}"}
    run.fault("busy", busy)
    run.submit_with("busy", WORD)
    why = "its workload cannot be put into a Secret: the API server answers 503"
    run.until("it says why", lambda: run.executor.waiting(run.key("busy")) == why)
    parked = run.stack.keys.parked("default")
    run.until("it is parked", lambda: run.stack.redis.zcard(parked) == 1)
    assert run.items(PODS)[run.pod("busy")]["status"]["phase"] == "Pending"
    run.stack.cluster.admin.delete("/_local/faults")
    state, outcome = run.until_final("busy")
    assert (state, outcome.attempts) == ("success", 1)
    assert run.stack.starts()["busy"] == 1
    run.until("nothing is left", lambda: run.stack.redis.zcard(parked) == 0)


def test_a_secret_that_may_not_be_created_fails_the_task_with_the_reason(run: Deliveries) -> None:
    message = (
        'secrets is forbidden: User "launcher" cannot create resource "secrets" in API group "" '
        'in the namespace "default"'
    )
    run.fault("denied", {"status": 403, "reason": "Forbidden", "message": message})
    run.submit_with("denied", WORD)
    run.until("its pod is stopped", lambda: STOPPED in json.dumps(run.items(PODS)))
    state, outcome = run.until_final("denied")
    assert (state, outcome.cause, outcome.attempts) == ("failed", Cause.ADMISSION, 2)
    assert message in outcome.message
    assert "launchers need config/kubernetes/launcher-workloads.yaml" in outcome.message
    assert run.stack.starts()["denied"] == 0
    assert not shows(run.everything_in_redis(), WORD)
    assert not any(name.startswith("dag-denied-") for name in run.items(SECRETS))
    run.until("no pod is left", lambda: run.pod("denied", 2) not in run.items(PODS))
