"""Logs: of tasks that wait, run, have failed, have succeeded."""

from __future__ import annotations

from tests.airflow.site import Site


def test_log_of_a_task_that_waits_for_a_node(site: Site) -> None:
    run = site.api.trigger("unplaceable", "waits")
    site.until("there is a pod", lambda: site.pods.of(run.run))
    said = site.until(
        "the executor says why it waits",
        lambda: (text := site.executor_log(run, "waiting")) and "node" in text and text,
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
    assert "waiting at the gate" in site.executor_log(run)
    site.open_gate("logs")
    site.until("the run is over", run.over)
    site.until("its pod is gone", lambda: not site.pods.of(run.run))
    assert "waiting at the gate" in run.log("gated")
    assert site.executor_log(run)
