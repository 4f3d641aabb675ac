"""What a scheduler can ask for, all of it at once, in one set of runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.airflow.api import Run
from tests.airflow.ledger import Entry
from tests.airflow.site import Site


@dataclass(frozen=True)
class Runs:
    """The runs, all of them over."""

    mapped: Run
    flow: Run
    overrides: Run
    priorities: Run

    def all(self) -> list[Run]:
        return [self.mapped, self.flow, self.overrides, self.priorities]


@pytest.fixture(scope="module")
def runs(site: Site) -> Runs:
    begun = Runs(*(site.api.trigger(dag, "all") for dag in Runs.__annotations__))
    site.until("all runs are over", lambda: all(run.over() for run in begun.all()), 400)
    return begun


def most_at_once(entries: list[Entry]) -> int:
    """How many tasks ran at the same time."""
    present = most = 0
    for entry in sorted(entries, key=lambda entry: entry.time):
        present += 1 if entry.what == "start" else -1
        most = max(most, present)
    return most


def test_thirty_mapped_tasks_run_once_each_and_their_results_are_read(
    site: Site, runs: Runs
) -> None:
    assert runs.mapped.state() == "success"
    assert site.ledger.starts(*runs.mapped.key) == [
        *(("square", index, 1) for index in range(30)),
        ("total", -1, 1),
    ]
    assert runs.mapped.xcom("square", map_index=7) == 49
    assert runs.mapped.xcom("total") == sum(n * n for n in range(30))


def test_a_pool_is_never_exceeded(site: Site, runs: Runs) -> None:
    assert 1 <= most_at_once(site.ledger.of(*runs.mapped.key, "square")) <= 6


def test_tasks_start_by_priority(site: Site, runs: Runs) -> None:
    started = [e.task for e in site.ledger.of(*runs.priorities.key) if e.what == "start"]
    assert started == ["rank_3", "rank_2", "rank_1"]


def test_states_of_the_flow(runs: Runs) -> None:
    assert runs.flow.states() == {
        "first": "success",
        "choose": "success",
        "left": "success",
        "right": "skipped",
        "joined": "success",
        "fails": "failed",
        "after_failure": "success",
        "never": "upstream_failed",
        "flaky": "success",
        "too_long": "failed",
        "hungry": "failed",
        "unpullable": "failed",
        "deferred": "success",
        "group.inner": "success",
    }


def test_each_task_of_the_flow_ran_as_often_as_it_should(site: Site, runs: Runs) -> None:
    once = ["first", "choose", "left", "joined", "fails", "after_failure", "too_long", "hungry"]
    assert site.ledger.starts(*runs.flow.key) == sorted(
        [
            *((task, -1, 1) for task in [*once, "deferred", "group.inner"]),
            ("flaky", -1, 1),
            ("flaky", -1, 2),
        ]
    )


def test_results_pass_between_tasks(runs: Runs) -> None:
    assert runs.flow.xcom("first") == {"number": 41}
    assert runs.flow.xcom("left") == 42
    assert runs.flow.xcom("group.inner") == "group.inner"


def test_a_retry_succeeds_as_the_second_try(runs: Runs) -> None:
    assert [t["state"] for t in runs.flow.tries("flaky")] == ["failed", "success"]


def test_a_task_out_of_time_is_failed_by_itself(site: Site, runs: Runs) -> None:
    start, end = site.ledger.of(*runs.flow.key, "too_long")
    assert end.time - start.time < 30
    assert "timed out" in runs.flow.log("too_long")


def test_a_task_killed_for_its_memory_says_so(runs: Runs) -> None:
    assert len(runs.flow.tries("hungry")) == 1
    assert any("oom_killed" in event for event in runs.flow.events("hungry"))


def test_an_image_that_cannot_be_pulled_is_tried_again_and_named(site: Site, runs: Runs) -> None:
    assert not site.ledger.of(*runs.flow.key, "unpullable")
    assert len(runs.flow.tries("unpullable")) == 1
    assert len(site.pods.seen("flow-unpullable-")) == 2
    said = "\n".join(runs.flow.events("unpullable"))
    assert "nowhere.invalid/airflow:1" in said


def test_a_deferred_task_resumes_in_a_pod_of_its_own(site: Site, runs: Runs) -> None:
    entries = site.ledger.of(*runs.flow.key, "deferred")
    assert [e.what for e in entries] == ["start", "end", "resume", "end"]
    assert entries[0].host != entries[2].host
    assert runs.flow.xcom("deferred") == "resumed"
    assert len(runs.flow.tries("deferred")) == 1


def test_each_form_of_executor_config_takes_effect(site: Site, runs: Runs) -> None:
    form = {e.task: e.form for run in (runs.flow, runs.overrides) for e in site.ledger.of(*run.key)}
    assert form["first"] == "section"
    assert form["choose"] == "top level"
    assert form["by_object"] == "object"
    assert form["by_patch"] == "patch"
    assert form["by_template"] == "template"
    assert form["left"] == ""


def test_the_command_of_the_pod_template_is_kept(site: Site, runs: Runs) -> None:
    ran = [entry for run in runs.all() for entry in site.ledger.of(*run.key)]
    assert {entry.entry_point for entry in ran} == {"template"}


def test_no_pod_is_left(site: Site, runs: Runs) -> None:
    site.until_pods_are_gone(*runs.all())
