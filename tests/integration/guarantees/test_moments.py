"""Revoked, or launched again under a new launch id, at every moment of a launch's life.

One stack for all; the tasks of every moment stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.guarantees.moments import BEFORE_A_POD, MOMENTS, OVER, Lives
from tests.integration.stack import Stack


def revoked(lives: Lives, task: str) -> bool:
    """It is not wanted any more."""
    return lives.executor.revoke(lives.key(task))


def again(lives: Lives, task: str) -> None:
    """The same key is launched again."""
    lives.launch(task, "second")


def replaced(lives: Lives, task: str) -> None:
    """It is revoked, and the same key is launched again."""
    lives.executor.revoke(lives.key(task))
    lives.launch(task, "second")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """Every task has come to its end."""
    settings = {"kubernetes__create_window": 3.0, "kubernetes__retry_budget": 1.5}
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        stack.watcher()
        stack.until_led()
        lives = Lives(stack, revoked, again, replaced)
        lives.live()
        yield lives
        lives.executor.end()
        stack.kill()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_revoked_launch_says_nothing_more_and_starts_nothing_more(
    lives: Lives, moment: str
) -> None:
    task = f"{moment}-revoked"
    starts = lives.stack.starts()[f"{task}/first"]
    assert lives.answers[task] is (moment not in OVER)
    if moment in OVER:  # too late: its end had been told, or was about to be
        assert lives.ends_told(task) == [("success", "first")]
        return
    assert lives.heard[task][lives.heard_before[task] :] == []
    assert lives.ends_told(task) == []
    if moment == "creating":  # what was under way arrives, and is stopped
        assert starts <= 1
        assert lives.stack.ends()[f"{task}/first"] == 0
    else:
        assert starts == (moment in ("running", "unread"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_both_launches_of_a_key_run_once_and_the_newer_one_speaks(
    lives: Lives, moment: str
) -> None:
    task = f"{moment}-again"
    starts, ends = lives.stack.starts(), lives.stack.ends()
    for launch in ("first", "second"):
        assert (starts[f"{task}/{launch}"], ends[f"{task}/{launch}"]) == (1, 1), launch
    told_before = [("success", "first")] if moment == "taken" else []
    assert lives.ends_told(task) == [*told_before, ("success", "second")]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_launch_that_replaces_a_revoked_one(lives: Lives, moment: str) -> None:
    task = f"{moment}-replaced"
    starts = lives.stack.starts()
    assert starts[f"{task}/second"] == 1
    if moment in (*BEFORE_A_POD, "pending"):
        assert starts[f"{task}/first"] == 0
    told_before = [("success", "first")] if moment == "taken" else []
    assert lives.ends_told(task) == [*told_before, ("success", "second")]


def test_nothing_is_left(lives: Lives) -> None:
    redis, keys = lives.stack.redis, lives.stack.keys
    assert lives.executor.running == set()
    assert lives.executor.queued_tasks == {}
    assert not redis.exists(keys.tasks, keys.pods("default", "default"))
    told = keys.results("exec-1")
    lives.until("what was told of revoked launches is deleted", lambda: not redis.xlen(told), 5)
