"""Launchers, the watcher and Redis go and come back while tasks run."""

from __future__ import annotations

from tests.airflow.site import Site


def test_launchers_and_the_watcher_are_restarted_one_after_the_other(site: Site) -> None:
    runs = [site.gated("restarts-0"), site.gated("restarts-1")]
    site.until("they run", lambda: site.has_started(*runs))
    for launcher in list(site.launchers):
        site.end(launcher)
        # While one is gone, the other one launches.
        runs.append(site.gated(f"restarts-{len(runs)}"))
        site.start_launchers()
    site.end(site.watching)
    # One that starts and one that ends while nobody watches.
    runs.append(site.gated(f"restarts-{len(runs)}"))
    site.open_gate("restarts-0")
    site.until("one has ended", lambda: runs[0].task_state() == "success")
    site.start_watcher()
    site.until("all run", lambda: site.has_started(*runs))
    for run in runs:
        site.open_gate(run.run)
    site.until("all runs are over", lambda: all(run.over() for run in runs), 90)
    site.assert_each_ran_once(*runs)
    site.until_pods_are_gone(*runs)


def test_redis_comes_back_empty(site: Site) -> None:
    running = [site.gated("emptied-0"), site.gated("emptied-1")]
    site.until("they run", lambda: site.has_started(*running))
    for launcher in list(site.launchers):
        site.end(launcher)
    published = [site.gated("emptied-2"), site.gated("emptied-3")]
    site.until("they are published", lambda: site.published() == len(published))

    site.redis_server.restart(keep_data=False)
    assert site.published() == 0
    # One ends before anybody can have restored what was lost.
    site.open_gate("emptied-0")
    site.start_launchers()

    runs = [*running, *published]
    site.until("all run", lambda: site.has_started(*runs), 90)
    for run in runs:
        site.open_gate(run.run)
    site.until("all runs are over", lambda: all(run.over() for run in runs), 90)
    site.assert_each_ran_once(*runs)
    site.until_pods_are_gone(*runs)
