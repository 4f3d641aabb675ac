"""Somebody marks or clears a task that runs."""

from __future__ import annotations

import os
import time

from tests.airflow.api import Run
from tests.airflow.settings import CREATE_WINDOW
from tests.airflow.site import Site

STOPPED_WITHIN = 10.0


def running(site: Site, name: str) -> tuple[Run, int, str]:
    """A run whose task runs, the process id of that, and its pod's name."""
    run = site.gated(name, dag="deaf")
    site.until("it runs", lambda: site.has_started(run))
    [start] = site.ledger.of(*run.key)
    return run, start.pid, start.host


def exists(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_stopped(site: Site, pid: int, pod: str, answered: float) -> None:
    """Its processes end within ten seconds, its pod goes within the create window."""
    site.until(
        "it is stopped", lambda: not exists(pid), answered + STOPPED_WITHIN - time.monotonic()
    )
    left = answered + CREATE_WINDOW - time.monotonic()
    site.until("its pod is gone", lambda: pod not in site.pods.all(), left)


def test_a_task_that_is_marked_failed_is_stopped(site: Site) -> None:
    run, pid, pod = running(site, "marked")
    run.mark("gated", "failed")
    assert_stopped(site, pid, pod, time.monotonic())
    site.until("the run is over", run.over)
    assert run.task_state() == "failed"
    assert len(run.tries("gated")) == 1
    assert site.ledger.starts(*run.key) == [("gated", -1, 1)]


def test_a_task_that_is_cleared_is_stopped_and_runs_again(site: Site) -> None:
    run, pid, pod = running(site, "cleared")
    run.clear("gated")
    assert_stopped(site, pid, pod, time.monotonic())
    site.until(
        "it runs again",
        lambda: site.ledger.starts(*run.key) == [("gated", -1, 1), ("gated", -1, 2)],
        90,
    )
    site.open_gate("cleared")
    site.until("the run is over", run.over)
    assert run.state() == "success"
    again = [e for e in site.ledger.of(*run.key) if e.try_number == 2]
    assert [e.what for e in again] == ["start", "end"]
    assert again[0].host != pod
    assert site.ledger.starts(*run.key) == [("gated", -1, 1), ("gated", -1, 2)]
