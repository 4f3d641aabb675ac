"""The redis-cli commands of the README, exactly as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kbroker.event import Cause, PodState, Started
from kbroker.redis_client import run
from tests.integration.scene import Scene, key

ROOT = Path(__file__).resolve().parents[2]


def commands() -> list[str]:
    """The lines of the README's block that call redis-cli."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Look inside") : text.index("## More")]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "redis-cli" in line]


STAND_IN = f"{sys.executable} {ROOT / 'tests' / 'integration' / 'redis_cli.py'}"
CLIENTS = [STAND_IN, *filter(None, [shutil.which("redis-cli")])]


@pytest.fixture(params=CLIENTS, ids=["stand-in", "redis-cli"][: len(CLIENTS)])
def shell(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Runs a line of the README in a shell where redis-cli talks to the test's Redis."""
    script = tmp_path / "redis-cli"
    script.write_text(f'#!/bin/sh\nexec {request.param} -u {redis_url} "$@"\n')
    script.chmod(0o755)

    def run_line(line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "(error)" not in done.stdout
        assert "ERR" not in done.stdout
        return done.stdout

    return run_line


@pytest.fixture
def lived_in(redis_url: str) -> None:
    """One launch runs, one waits on the queue, one is parked, one is dead; a watcher leads."""
    scene = Scene(redis_url)
    scene.lead()
    executor = scene.executor()
    for task in ("runs", "queued", "parked", "dead"):
        executor.execute_async(key(task), ["true"])
    executor.heartbeat()
    attempts = {m.attempt.launch.key.task_id: m.attempt for m in scene.queued()}
    # The index lists the oldest first; only the one that runs keeps its place there.
    for digest in scene.redis.zrange(scene.keys.tasks, 0, -1):
        if digest.decode() != attempts["runs"].launch.digest:
            scene.redis.zincrby(scene.keys.tasks, 1000, digest)
    scene.launched(attempts["runs"])
    executor.heartbeat()  # takes these events; the next one stays to be seen
    scene.watched(
        scene.pod(attempts["runs"], PodState.RUNNING, started=Started.YES, message="still going")
    )
    waiting = scene.pod(
        attempts["parked"],
        PodState.WAITING,
        uid=None,
        resource_version=0,
        cause=Cause.QUOTA,
        message="exceeded quota",
    )
    scene.drop_entries(attempts["parked"])
    scene.drop_entries(attempts["dead"])
    item = f"launch:{attempts['parked'].launch.digest}:1"
    queue = scene.keys.launch_queue("default", "normal")
    run(
        scene.redis,
        [
            scene.records.park("default", item, b"{}", 60, entry=None, event=waiting),
            scene.records.bury(queue, "", "handed out 3 times, never finished", b"{}", None),
        ],
    )
    scene.redis.xgroup_create(queue, "launchers", id="0")
    scene.redis.xreadgroup("launchers", "host-1-abc", {queue: ">"}, count=1)


@pytest.mark.usefixtures("lived_in")
@pytest.mark.parametrize(
    ("part", "shows"),
    [
        ("XLEN", r"^1$"),
        ("XPENDING", r"host-1-abc"),
        ("ZRANGE '{kbroker}:tasks' 0 -1", r"(?m)(^[0-9a-f]{40}\n){4}"),
        ("HGETALL \"{kbroker}:task:", r"(?s)wanted.*dag-runs-|dag-runs-.*wanted"),
        ("parked.default", r"launch:[0-9a-f]{40}:1\n\d{13}"),
        ("pods:default:default", r'dag-runs-[0-9a-f]{20}\n.*"state":"running"'),
        ("results:", r"still going"),
        ("HGETALL '{kbroker}:watch", r"(?s)leader\nscene|scene"),
        ("PTTL", r"^\d{4,5}$"),
        ("{kbroker}:dead", r"handed out 3 times, never finished"),
    ],
)  # fmt: skip
def test_a_command_shows_what_the_readme_says(shell, part: str, shows: str) -> None:
    matching = [line for line in commands() if part in line]
    assert len(matching) == 1, matching
    assert re.search(shows, shell(matching[0]))


def test_every_command_of_the_readme_is_tested() -> None:
    assert len(commands()) == 10
