"""The scheduler is killed, and another one takes over what it had begun."""

from __future__ import annotations

from tests.airflow.site import Site


def test_a_killed_scheduler_loses_nothing_and_nothing_runs_twice(site: Site) -> None:
    running = [site.gated(f"running-{n}") for n in range(2)]
    deferring = site.gated("deferring", dag="gated_deferred")
    site.until("they run", lambda: site.has_started(*running, deferring))

    for launcher in list(site.launchers):
        site.end(launcher)
    published = [site.gated(f"published-{n}") for n in range(2)]
    site.until("they are published", lambda: site.published() == len(published))

    site.redis_server.stop()
    kept = [site.gated(f"kept-{n}") for n in range(2)]
    site.until("they are queued", lambda: all(r.task_state() == "queued" for r in kept))

    begun = [*running, deferring, *published, *kept]
    instances = [run.task("gated")["id"] for run in begun]
    site.end(site.scheduler)
    site.redis_server.start()
    assert site.published() == len(published)

    # It defers, its pod finishes, and its trigger fires: nobody takes notice.
    site.open_gate("deferring")
    site.until("it is due again", lambda: deferring.task_state() == "scheduled")
    [first_pod] = site.pods.of("deferring")
    site.until(
        "its first pod has finished",
        lambda: site.pods.all()[first_pod]["status"]["phase"] == "Succeeded",
    )

    site.start_launchers()
    site.start_scheduler()
    site.until("it has resumed", lambda: site.has_started(deferring, what="resume"), 90)
    site.until("the others run", lambda: site.has_started(*published, *kept), 90)
    for run in begun:
        site.open_gate(run.run)
    site.open_gate("deferring-2")
    site.until("all runs are over", lambda: all(run.over() for run in begun), 90)

    site.assert_each_ran_once(*begun)
    assert [run.task("gated")["id"] for run in begun] == instances, "handed back, not adopted"
    resumed = [e for e in site.ledger.of(*deferring.key) if e.what == "resume"]
    assert len(resumed) == 1
    assert resumed[0].host != first_pod
