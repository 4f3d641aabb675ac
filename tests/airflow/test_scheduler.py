"""The scheduler is killed, and another one takes over what it had begun."""

from __future__ import annotations

import psutil

from tests.airflow.api import Run
from tests.airflow.site import Site


def phase(site: Site, pod: str) -> str:
    """The phase of a pod."""
    return str(site.pods.all()[pod]["status"]["phase"])


def test_a_killed_scheduler_loses_nothing_and_nothing_runs_twice(site: Site) -> None:
    going_on, ending, doomed = (site.gated(f"killed-{n}") for n in ("goes-on", "ends", "doomed"))
    deferring = site.gated("killed-defers", dag="gated_deferred")
    running = [going_on, ending, doomed, deferring]
    site.until("they run", lambda: site.has_started(*running))

    for launcher in list(site.launchers):
        site.end(launcher)
    published = [site.gated(f"killed-published-{n}") for n in range(2)]
    site.until("they are published", lambda: site.published() == len(published))

    site.redis_server.stop()
    kept = [site.gated(f"killed-kept-{n}") for n in range(2)]
    site.until("they are queued", lambda: all(r.task_state() == "queued" for r in kept))

    begun = [*running, *published, *kept]
    instances = [run.task("gated")["id"] for run in begun]
    site.end(site.scheduler)
    site.redis_server.start()
    assert site.published() == len(published)

    ended = _end_without_a_scheduler(site, ending, doomed, deferring)
    site.start_scheduler()
    site.until("it has resumed", lambda: site.has_started(deferring, what="resume"), 90)
    site.until("the others run", lambda: site.has_started(*published, *kept), 90)
    for run in begun:
        site.open_gate(run.run)
    site.open_gate("killed-defers-2")
    site.until("all runs are over", lambda: all(run.over() for run in begun), 90)

    succeeded = [run for run in begun if run is not doomed]
    site.assert_each_ran_once(*succeeded)
    assert [run.task("gated")["id"] for run in begun] == instances, "handed back, not adopted"
    resumed = [e for e in site.ledger.of(*deferring.key) if e.what == "resume"]
    assert len(resumed) == 1
    assert resumed[0].host not in ended
    assert doomed.state() == "failed"
    assert any("exit code 137" in event for event in doomed.events("gated"))
    # Airflow names none of those that ended for adoption; they go all the same.
    site.until_pods_are_gone(*begun)


def _end_without_a_scheduler(site: Site, ending: Run, doomed: Run, deferring: Run) -> set[str]:
    """One task ends, one is killed, one defers and is due again: nobody takes notice.

    Returns the pods of tasks that have ended for Airflow, too.
    """
    site.open_gate(ending.run)
    site.open_gate(deferring.run)
    [start] = site.ledger.of(*doomed.key)
    psutil.Process(start.pid).parent().kill()
    site.until("it is due again", lambda: deferring.task_state() == "scheduled")
    [left] = site.pods.of(ending.run)
    [failed] = site.pods.of(doomed.run)
    [deferred] = site.pods.of(deferring.run)
    for pod, outcome in ((left, "Succeeded"), (failed, "Failed"), (deferred, "Succeeded")):
        site.until(f"{pod} has ended", lambda p=pod, o=outcome: phase(site, p) == o)
    assert ending.task_state() == "success"
    assert doomed.task_state() == "running"

    site.start_launchers()
    for run in (ending, doomed):
        assert "waiting at the gate" in site.executor_log(run)
    return {left, deferred}
