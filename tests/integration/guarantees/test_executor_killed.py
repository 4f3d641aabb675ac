"""The executor dies at every step between a final event and the deletion of its pod."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kbroker import naming
from tests.integration.guarantees.killed_scheduler import STEPS
from tests.integration.scene import poll
from tests.integration.stack import Process, Stack, running

LIVES = ("same", "another")
NAMES = tuple(f"{step}.{life}" for step in STEPS for life in LIVES)


@dataclass
class Lived:
    """What is left of all schedulers.

    Attributes:
        stack: they ran on.
        database: name → what its database says: moment, launch id, state.
        gone: name → when its pod was gone.
        present: names whose pods are there.
    """

    stack: Stack
    database: dict[str, list[tuple[float, str, str]]]
    gone: dict[str, float]
    present: set[str]


def pods(stack: Stack) -> set[str]:
    """Names of the schedulers whose pods are there."""
    items = stack.cluster.admin.get("/api/v1/namespaces/default/pods")["items"]
    found = [naming.attempt_from_annotations(pod["metadata"]["annotations"]) for pod in items]
    return {attempt.launch.key.task_id for attempt in found if attempt is not None}


def read(folder: Path, name: str) -> list[tuple[float, str, str]]:
    """What a scheduler has stored."""
    path = folder / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(at), launch, state) for at, launch, state in map(str.split, lines)]


def ended(stack: Stack, process: Process, gone: dict[str, float]) -> None:
    """Wait for all schedulers; note when pods go."""

    def over() -> bool:
        started = set(stack.starts())
        for name in started - pods(stack):
            gone.setdefault(name, time.time())
        return not process.alive

    poll("they have ended", over, 60.0)
    assert process._popen.returncode == 0, stack.logs()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Everybody dies, and is started again."""
    folder = tmp_path_factory.mktemp("databases")
    settings = {
        "core__executor_lease": 1.5,
        "kubernetes__create_window": 1.5,
        "kubernetes__retry_budget": 1.0,
        "watcher__orphan_after": 60.0,
    }
    with running(tmp_path_factory.mktemp("stack"), launchers=1, **settings) as stack:
        module = "tests.integration.guarantees.killed_scheduler"
        base = (module, str(folder), str(stack.ledger_path))
        gone: dict[str, float] = {}
        ended(stack, stack.start(*base, *NAMES), gone)
        ended(stack, stack.start(*base, "--adopt", *NAMES), gone)
        stored = {f"stored.{life}" for life in LIVES}
        poll("their pods are gone", lambda: pods(stack) <= stored, 20.0)
        yield Lived(stack, {name: read(folder, name) for name in NAMES}, gone, pods(stack))
        stack.kill()


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("step", STEPS)
def test_its_end_is_heard_and_its_pod_goes_after_that(lived: Lived, step: str, life: str) -> None:
    name = f"{step}.{life}"
    assert (lived.stack.starts()[name], lived.stack.ends()[name]) == (1, 1)
    heard = lived.database[name]
    assert [(launch, state) for _, launch, state in heard] == [(f"launch-{name}", "success")]
    if name in lived.gone:
        assert lived.gone[name] > heard[0][0]


def test_each_pod_is_deleted_once(lived: Lived) -> None:
    stats = lived.stack.cluster.admin.get("/_local/stats")
    assert stats["create pods 201"] == len(NAMES)
    assert stats["delete pods 200"] == len(NAMES) - len(lived.present)
    assert lived.present == {f"stored.{life}" for life in LIVES}
    assert collections.Counter(NAMES) == lived.stack.starts()
