"""Logs: of tasks that wait, run, have failed, have succeeded."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.airflow.api import Run
from tests.airflow.site import HERE, Site
from tests.integration.stack import ROOT


def executor_log(site: Site, run: Run, task: str, try_number: int = 1) -> str:
    """What the executor's `get_task_log` says, asked as the API server does: not started."""
    asked = subprocess.run(
        [sys.executable, str(HERE / "task_log.py"), *run.key, task, str(try_number)],
        env=site.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    messages, logs = json.loads(asked.stdout.splitlines()[-1])
    return "\n".join([*messages, *logs])


def test_log_of_a_task_that_waits_for_a_node(site: Site) -> None:
    run = site.api.trigger("unplaceable", "waits")
    site.until("there is a pod", lambda: site.pods.of(run.run))
    said = site.until(
        "the executor says why it waits",
        lambda: (text := executor_log(site, run, "waiting")) and "node" in text and text,
    )
    assert said
    run.mark("waiting", "failed")
    site.until("its pod is gone", lambda: not site.pods.of(run.run))
    assert not site.ledger.of(*run.key)


def test_log_of_a_task_that_runs_and_when_it_has_ended(site: Site) -> None:
    run = site.gated("logs")
    site.until("it runs", lambda: site.has_started(run))
    site.until("Airflow knows that", lambda: run.task_state() == "running")
    site.until("the API has its log", lambda: "waiting at the gate" in run.log("gated"))
    assert "waiting at the gate" in executor_log(site, run, "gated")
    site.open_gate("logs")
    site.until("the run is over", run.over)
    site.until("its pod is gone", lambda: not site.pods.of(run.run))
    assert "waiting at the gate" in run.log("gated")
    assert executor_log(site, run, "gated")
