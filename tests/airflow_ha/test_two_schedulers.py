"""Two schedulers share the work, and each goes on with what the other one leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.api import Run
from tests.airflow.site import Site
from tests.airflow_ha.postgres import Postgres

TASKS = 6


class SiteOfTwo(Site):
    """With a database for several schedulers, two of them, and two executors in each.

    Args:
        folder: everything is written below it.
        database: URL of the database.
    """

    other_executor = "LocalExecutor"

    def __init__(self, folder: Path, database: str) -> None:
        super().__init__(folder)
        self._database = database

    @property
    def database(self) -> str:
        return self._database

    def _begin(self) -> None:
        super()._begin()
        self.first = self.scheduler
        self.second = self.start_scheduler()

    def owners(self, runs: list[Run]) -> set[str]:
        """The executors that launched the pods of these runs."""
        return {
            pod["metadata"]["labels"]["airflow-worker"]
            for run in runs
            for pod in self.pods.of(run.run).values()
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteOfTwo]:
    with (
        Postgres() as postgres,
        SiteOfTwo(tmp_path_factory.mktemp("site"), postgres.url) as running,
    ):
        yield running


def test_each_task_runs_once_whoever_launches_it_and_whoever_dies(site: SiteOfTwo) -> None:
    runs = [site.gated(f"two-{number}") for number in range(TASKS)]
    site.until("all run", lambda: site.has_started(*runs), 120)
    for launcher in list(site.launchers):
        site.end(launcher)
    published = [site.gated(f"two-published-{number}") for number in range(2)]
    site.until("they are published", lambda: site.published() == len(published))

    # The one dies, and its successor while it may still be taking over.
    site.end(site.first)
    site.start_launchers()
    for run in runs[:2]:
        site.open_gate(run.run)
    site.until("the published ones run", lambda: site.has_started(*published), 120)
    site.start_scheduler()
    site.end(site.second)
    for run in [*runs, *published]:
        site.open_gate(run.run)
    everything = [*runs, *published]
    site.until("all runs are over", lambda: all(run.over() for run in everything), 120)
    site.assert_each_ran_once(*everything)
    site.until_pods_are_gone(*everything)


def test_both_launch(site: SiteOfTwo) -> None:
    """Whichever is first takes a task: in the end both had some."""
    site.start_scheduler()
    seen: set[str] = set()
    for number in range(20):
        runs = [site.gated(f"shared-{number}-{index}") for index in range(3)]
        site.until("all run", lambda these=runs: site.has_started(*these), 120)
        seen |= site.owners(runs)
        for run in runs:
            site.open_gate(run.run)
        site.until("all are over", lambda these=runs: all(run.over() for run in these), 120)
        site.assert_each_ran_once(*runs)
        if len(seen) > 1:
            return
    raise AssertionError(f"one scheduler launched everything: {seen}")


def test_each_executor_of_a_list_runs_its_own_tasks(site: SiteOfTwo) -> None:
    run = site.api.trigger("places", "list")
    site.until("the run is over", run.over, 120)
    assert run.state() == "success"
    assert (run.xcom("here"), run.xcom("elsewhere")) == ("True", "no pod")
