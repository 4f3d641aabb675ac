"""What a run remembers on disk, and what a resumed run does with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cli.journal import History, Journal, Place, digest, journal_path
from kbroker.cli.resumption import Plan, Todo, check, plan
from kbroker.cli.task_file import TaskSpec
from kbroker.errors import UsageError
from kbroker.event import Cause, Outcome

PLACE = Place("kbroker", "default", "default", own_cluster=False)
LOCAL = Place("kbroker", "default", "default", own_cluster=True)
FAILED = Outcome("launch-1", 1, Cause.ERROR, 3, "exit code 3", "pod-1", "default", "uid-1")
SUCCEEDED = Outcome("launch-2", 2)


def journal(folder: Path, run_id: str = "r1") -> Journal:
    return Journal(folder, run_id, "dag", clock=lambda: 1_800_000_000.0)


def written(folder: Path, write: Callable[[Journal], None]) -> Journal:
    """A journal read back after somebody wrote to it and was killed."""
    with journal(folder) as first:
        first.opened(PLACE, 3)
        write(first)
        first.commit()
    with journal(folder) as again:
        return again


def test_a_new_run_has_no_past(tmp_path: Path) -> None:
    with journal(tmp_path) as run:
        assert (run.history, run.place, run.resumed, run.unclosed) == ({}, None, False, [])


def test_tries_and_ends_come_back(tmp_path: Path) -> None:
    def write(run: Journal) -> None:
        run.tried("a", 1, "d-a")
        run.tried("b", 1, "d-b")
        run.tried("c", 1, "d-c")
        run.ended("a", 1, FAILED, state=None, retry_at=1_800_000_005.0)
        run.ended("b", 1, SUCCEEDED, state="success", retry_at=None)
        run.dropped("c", 1)
        run.tried("d", 2, "d-d")

    run = written(tmp_path, write)
    assert run.resumed
    assert run.place == PLACE
    assert run.history == {
        "a": History("d-a", 1, False, [FAILED], None, 1_800_000_005.0),
        "b": History("d-b", 1, False, [SUCCEEDED], "success"),
        "c": History("d-c", 1),
        "d": History("d-d", 2, True),
    }
    assert run.unclosed == [("a", 1, FAILED), ("b", 1, SUCCEEDED)]


def test_what_was_let_go_of_is_not_let_go_of_again(tmp_path: Path) -> None:
    def write(run: Journal) -> None:
        run.ended("a", 1, SUCCEEDED, state="success", retry_at=None)
        run.let_go()
        run.ended("b", 1, SUCCEEDED, state="success", retry_at=None)

    assert written(tmp_path, write).unclosed == [("b", 1, SUCCEEDED)]


def test_nothing_is_on_disk_before_it_is_committed(tmp_path: Path) -> None:
    with journal(tmp_path) as run:
        run.opened(PLACE, 1)
        before = run.path.read_bytes()
        run.tried("a", 1, "d")
        assert run.path.read_bytes() == before
        run.commit()
        assert orjson.loads(run.path.read_bytes().splitlines()[-1])["event"] == "try"


def test_it_holds_no_command(tmp_path: Path) -> None:
    spec = TaskSpec("a", ("curl", "-H", "token: hush"), {"env": {"KEY": "hush"}})
    with journal(tmp_path) as run:
        run.opened(PLACE, 1)
        run.tried("a", 1, digest(spec))
        run.commit()
        assert b"hush" not in run.path.read_bytes()


@given(cut=st.integers(1, 10_000))
def test_a_journal_cut_off_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with journal(folder) as run:
        run.opened(PLACE, 20)
        for number in range(20):
            run.tried(f"t{number}", 1, "d")
        run.commit()
        path = run.path
    data = path.read_bytes()
    kept = data[: cut % len(data)]
    path.write_bytes(kept)
    with journal(folder) as again:
        whole = kept[: kept.rfind(b"\n") + 1]
        assert len(again.history) == max(0, whole.count(b"\n") - 2)
        assert bool(again.warning) is (whole != kept)
        again.opened(PLACE, 20)
    with journal(folder) as third:
        assert not third.warning
        assert third.resumed


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{no json}", "is damaged"),
        (b"[1]", "is damaged (no object)"),
        (b'{"event": "end", "task": "a", "number": 1}', "is damaged ('state')"),
        (b'{"event": "party", "task": "a", "number": 1}', "unknown event 'party'"),
        (b'{"event": "run", "v": 2, "run_id": "r1", "name": "x"}', "a newer kbroker"),
        (b'{"event": "run", "v": 1, "run_id": "r2", "name": "x"}', "is of run 'r2', not 'r1'"),
    ],
)
def test_what_is_no_journal_is_refused_in_one_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = journal_path(tmp_path, "r1")
    path.parent.mkdir(parents=True)
    path.write_bytes(line + b"\n")
    with pytest.raises(UsageError) as caught:
        journal(tmp_path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run_id", ["nightly", "a/b", "..", "ü 🚀", "x" * 300, "Nightly"])
def test_any_run_id_has_a_journal_of_its_own_inside_the_folder(tmp_path: Path, run_id: str) -> None:
    path = journal_path(tmp_path, run_id)
    assert path.parent.parent == tmp_path
    with Journal(tmp_path, run_id, "dag") as run:
        run.opened(PLACE, 1)
    with Journal(tmp_path, run_id, "other") as again:
        assert again.resumed
        assert again.name == "dag"
    assert len({journal_path(tmp_path, name) for name in (run_id, "a b", "nightly-2")}) == 3


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kbroker.cli.journal import Journal\n"
        "Journal(Path(sys.argv[1]), 'r1', 'dag')"
    )
    with journal(tmp_path) as run:
        run.opened(PLACE, 1)
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"UsageError: run 'r1' is being worked on by another process (pid {os.getpid()})" in (
        done.stderr
    )


# What a resumed run does.


@pytest.mark.parametrize(
    ("history", "gone", "again", "expected"),
    [
        (None, False, False, Plan(Todo.TRY, 1)),
        (History("d", 1, True), False, False, Plan(Todo.ADOPT, 1)),
        (History("d", 3, True, [FAILED]), False, False, Plan(Todo.ADOPT, 3)),
        (History("d", 1, True), True, False, Plan(Todo.TRY, 2)),
        (History("d", 1), False, False, Plan(Todo.TRY, 2)),  # given up by the run itself
        (History("d", 1, False, [FAILED], None, 9.0), False, False, Plan(Todo.WAIT, 2)),
        (History("d", 1, False, [FAILED], None, 9.0), True, False, Plan(Todo.WAIT, 2)),
        (History("d", 1, False, [SUCCEEDED], "success"), False, False, Plan(Todo.DONE, 1)),
        (History("d", 1, False, [SUCCEEDED], "success"), True, True, Plan(Todo.DONE, 1)),
        (History("d", 1, False, [FAILED], "failed"), False, False, Plan(Todo.DONE, 1)),
        (History("d", 1, False, [FAILED], "failed"), True, False, Plan(Todo.DONE, 1)),
        (History("d", 1, False, [FAILED], "failed"), False, True, Plan(Todo.TRY, 2)),
        (History("d", 1, False, [FAILED], "cancelled"), False, False, Plan(Todo.DONE, 1)),
    ],
)
def test_what_is_done_with_a_task(
    history: History | None, gone: bool, again: bool, expected: Plan
) -> None:
    assert plan(history, cluster_gone=gone, again=again) == expected


A = TaskSpec("a", ("true",), {"image": "x"})
CHANGED = TaskSpec("a", ("false",), {"image": "x"})
UNDER_WAY = {"a": History(digest(A), 1, True)}
ELSEWHERE = Place("kbroker", "default", "other", own_cluster=False)


@pytest.mark.parametrize(
    ("specs", "before", "now", "said"),
    [
        ([A], PLACE, ELSEWHERE, "has 1 tasks under way in deployment 'kbroker', default/default"),
        ([A], PLACE, LOCAL, "resume it there"),
        (
            [CHANGED],
            PLACE,
            PLACE,
            "may be under way, but changed in the task file: task 'a': put it back",
        ),
        (
            [],
            PLACE,
            PLACE,
            "may be under way, but no longer in the task file: task 'a': put it back",
        ),
    ],
)
def test_what_may_be_under_way_is_not_resumed_otherwise(
    specs: list[TaskSpec], before: Place, now: Place, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check(specs, UNDER_WAY, before, now, "r1")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("specs", "history", "before", "now"),
    [
        ([A], UNDER_WAY, PLACE, PLACE),
        ([A], {}, None, PLACE),
        ([CHANGED], UNDER_WAY, LOCAL, LOCAL),  # its pods are gone
        ([A], UNDER_WAY, LOCAL, PLACE),
        ([], {"a": History(digest(A), 1)}, PLACE, PLACE),
        ([A], {"a": History(digest(A), 1, False, [SUCCEEDED], "success")}, PLACE, ELSEWHERE),
    ],
)
def test_all_else_is(
    specs: list[TaskSpec], history: dict[str, History], before: Place | None, now: Place
) -> None:
    assert check(specs, history, before, now, "r1") == []


def test_a_finished_task_that_changed_is_said() -> None:
    past = {"a": History(digest(A), 1, False, [SUCCEEDED], "success")}
    assert check([CHANGED], past, PLACE, PLACE, "r1") == [
        "changed since the last try: task 'a'; what has finished is not run again"
    ]


def test_a_run_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with journal(tmp_path / "runs" / "here"):
        pass
    assert list(tmp_path.iterdir()) == []
