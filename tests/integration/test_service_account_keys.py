"""Service account keys: asked for by name, put into Secrets by launchers, found by pods."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.integration.scene import Scene, key
from tests.integration.stack import ROOT, Run, running

SETTING = "kubernetes.gcp_service_account_keys"
HUSH = "-----BEGIN hush hush-----"


def asked(scene: Scene, cluster: str = "default") -> list[tuple[str, str]]:
    """(namespace, name) of every Secret that was asked for."""
    found = []
    for _, fields in scene.redis.xrange(scene.keys.secrets_queue(cluster)):
        envelope = orjson.loads(fields[b"message"])
        assert envelope["actor_name"] == "secret"
        (body,) = envelope["args"]
        assert set(body) == {"v", "deployment", "cluster", "namespace", "name"}
        found.append((body["namespace"], body["name"]))
    return found


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, kubernetes__gcp_service_account_keys="gcp-key=/a.json,other=/b.json")
    scene.lead()
    return scene


def test_a_starting_executor_asks_for_all_once_and_names_no_file(scene: Scene) -> None:
    executor = scene.executor()
    for _ in range(3):
        executor.heartbeat()
    assert asked(scene) == [("default", "gcp-key"), ("default", "other")]
    assert b"json" not in b"".join(
        fields[b"message"] for _, fields in scene.redis.xrange(scene.keys.secrets_queue("default"))
    )


def test_where_else_a_task_names_one_that_one_is_asked_for(scene: Scene) -> None:
    executor = scene.executor()
    for number, config in enumerate(
        [
            {"gcp_service_account_key": "gcp-key"},
            {"gcp_service_account_key": "gcp-key", "namespace": "elsewhere"},
            {"gcp_service_account_key": "gcp-key", "namespace": "elsewhere"},
            {"gcp_service_account_key": "made-by-hand", "namespace": "elsewhere"},
            {"namespace": "third"},
        ]
    ):
        executor.execute_async(key(f"t{number}"), ["true"], executor_config=config)
    executor.heartbeat()
    assert asked(scene)[2:] == [("elsewhere", "gcp-key")]


def test_a_lost_redis_is_asked_again(scene: Scene) -> None:
    executor = scene.executor()
    scene.redis.flushall()
    executor.lease_missing()
    executor.heartbeat()  # finds that the lease is lost
    executor.heartbeat()
    assert asked(scene) == [("default", "gcp-key"), ("default", "other")]


def test_without_keys_nothing_is_asked(redis_url: str) -> None:
    scene = Scene(redis_url)
    scene.lead()
    scene.executor().heartbeat()
    assert asked(scene) == []


def everything_in_redis(stack) -> bytes:
    parts = []
    for name in stack.redis.scan_iter():
        parts += [name, stack.redis.dump(name) or b""]
    return b"".join(parts)


def test_from_the_launchers_file_to_the_pods(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(orjson.dumps({"private_key": HUSH}).decode())
    setting = {"kubernetes__gcp_service_account_keys": f"gcp-key={path}"}
    with running(tmp_path, launchers=1, **setting) as stack:
        executor = stack.executor()
        run = Run(stack, executor)
        secrets = "/api/v1/namespaces/default/secrets/gcp-key"

        def content() -> str:
            data = stack.cluster.admin.get(secrets)["data"]["key.json"]
            return base64.b64decode(data).decode()

        run.tasks.append("reader")
        executor.execute_async(
            run.key("reader"),
            ["sh", "-c", 'cat "$GOOGLE_APPLICATION_CREDENTIALS" > "$0"', str(tmp_path / "seen")],
            executor_config={"gcp_service_account_key": "gcp-key"},
        )
        run.finish()
        assert [state for state, _ in run.finals["reader"]] == ["success"]
        assert (tmp_path / "seen").read_text() == path.read_text() == content()

        path.write_text("rotated")
        second = stack.executor("exec-2")
        Run(stack, second).until("the Secret is replaced", lambda: content() == "rotated")

        for where in (everything_in_redis(stack), stack.logs().encode()):
            for hidden in (HUSH.encode(), base64.b64encode(HUSH.encode())[4:-4], b"rotated"):
                assert hidden not in where
        second.end()
        executor.end()


def test_a_launcher_without_the_file_says_so_and_does_not_start(
    redis_url: str, tmp_path: Path
) -> None:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KBROKER")},
        "KBROKER__BROKER__URL": redis_url,
        "KBROKER__KUBERNETES__GCP_SERVICE_ACCOUNT_KEYS": f"gcp-key={tmp_path}/gone.json",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dramatiq", "workers.launcher", "--processes", "1"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.endswith(
        f"launcher: error: {SETTING}: gcp-key={tmp_path}/gone.json: No such file or directory; "
        "the file must be where launchers run"
    )
