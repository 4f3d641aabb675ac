"""The processes of a local run, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.cli import stack as stack_module
from kbroker.cli.stack import Stack
from kbroker.errors import BrokerUnavailableError, ClusterError
from kbroker.kube_config import KubeConfig
from tests.integration.scene import poll
from tests.integration.test_cli import children_of


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(KubeConfig(), tmp_path, 1) as stack:
        yield stack
    assert children_of(tmp_path) == []


def launchers(folder: Path) -> list[int]:
    return [int(c.split()[0]) for c in children_of(folder) if "workers.launcher" in c]


def launcher(stack: Stack) -> int:
    """Process id of the launcher itself, whose children do the work."""
    return stack._workers["launcher-1"].process.pid


def until_ended(stack: Stack) -> None:
    def ends() -> bool:
        stack.check()
        return False

    poll("it is noticed", ends, 10)


def test_a_killed_launcher_is_started_again(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = launchers(tmp_path)
    monkeypatch.setattr(stack_module, "_WORTH_RESTARTING", 0.0)
    os.kill(launcher(stack), signal.SIGKILL)

    def again() -> bool:
        stack.check()
        present = launchers(tmp_path)
        return bool(present) and not set(before) & set(present)

    poll("another one runs, and no part of the old one", again, 10)


def test_a_launcher_that_ends_at_once_ends_the_run(stack: Stack) -> None:
    os.kill(launcher(stack), signal.SIGKILL)
    with pytest.raises(ClusterError, match="launcher-1 ended with exit code -9"):
        until_ended(stack)


def test_a_dead_redis_or_cluster_ends_the_run(stack: Stack) -> None:
    assert stack._redis.pid is not None
    os.kill(stack._redis.pid, signal.SIGKILL)
    with pytest.raises((BrokerUnavailableError, ClusterError), match="Redis"):
        until_ended(stack)
