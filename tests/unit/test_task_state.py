"""The state machine of a launch: every row of its tables, and what must hold for any history."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.event import Cause, PodEvent, PodState, Started, vanished
from kbroker.task import Launch, TaskKey
from kbroker.task_state import (
    PHASE_OF,
    PICTURE_MARGIN_MS,
    TABLE,
    Evidence,
    News,
    Phase,
    Repair,
    Step,
    View,
    Whose,
    next_step,
    repair,
    whose,
)

LAUNCH = Launch("kbroker", TaskKey("dag", "task", "run"), "launch")
WINDOW = 30_000
NOW = 1_000_000


def event(state: PodState, attempt: int = 1, **values) -> PodEvent:
    base = PodEvent(
        LAUNCH.attempt(attempt), "c", "n", "pod", state, uid=f"uid-{attempt}", resource_version=5
    )
    return base.changed(**values)


def view(phase: Phase = Phase.PUBLISHED, **values) -> View:
    return View(phase, 1, None, 3).changed(**values)


# Of which pod, and where the launch stands → what follows from waiting, pending, running,
# succeeded, failed, failed with proof that nothing started, and expired:
# Note, Succeed, Fail, Relaunch, reneW, or nothing.
LIFE = """
older buffered   . . . . . . .
older published  . . . . . . .
older waiting    . . . . . . .
older pending    . . . . . . .
older running    . . . . . . .
older done       . . . . . . .
same  buffered   N N N S F R W
same  published  N N N S F R W
same  waiting    N N N S F R W
same  pending    . N N S F R .
same  running    . . N S F F .
same  done       . . . . . . .
other buffered   . . . . . . .
other published  . . . . . . .
other waiting    . . . . . . .
other pending    . . . . . . .
other running    . . . . . . .
other done       . . . . . . .
newer buffered   N N N S F R W
newer published  N N N S F R W
newer waiting    N N N S F R W
newer pending    N N N S F R W
newer running    N N N S F R W
newer done       . . . . . . .
"""
STEPS = {
    ".": Step.IGNORE,
    "N": Step.NOTE,
    "S": Step.SUCCEED,
    "F": Step.FAIL,
    "R": Step.RELAUNCH,
    "W": Step.RENEW,
}
CASES = [
    (Whose(words[0]), Phase(words[1]), news, STEPS[letter])
    for words in map(str.split, LIFE.strip().splitlines())
    for news, letter in zip(News, words[2:], strict=True)
]


def said(of: Whose, news: News) -> PodEvent:
    """An event that says this, to a launch at its second attempt with a pod "known"."""
    number = {Whose.OLDER: 1, Whose.NEWER: 3}.get(of, 2)
    uid = "known" if of is Whose.SAME else "another"
    if news is News.EXPIRED:
        return event(
            PodState.FAILED, number, uid=uid if of is Whose.OTHER else None, cause=Cause.EXPIRED
        )
    if news is News.REPEATABLE:
        return event(PodState.FAILED, number, uid=uid, started=Started.NEVER)
    return event(PodState(news), number, uid=uid, started=Started.UNKNOWN)


def test_the_table_is_complete() -> None:
    assert {(w, p, n) for w, p, n, _ in CASES} == set(product(Whose, Phase, News))
    rows = {(w, p): set(row) for w, phases in TABLE.items() for p, row in phases.items()}
    assert rows == {place: set(News) for place in product(Whose, Phase)}


@pytest.mark.parametrize(("of", "phase", "news", "step"), CASES)
def test_step(of: Whose, phase: Phase, news: News, step: Step) -> None:
    launch = View(phase, attempt=2, uid="known", relaunch_limit=3, renewable=True)
    assert next_step(launch, said(of, news)) is step


@pytest.mark.parametrize(
    ("values", "seen", "step"),
    [
        ({}, {"started": Started.NEVER}, Step.RELAUNCH),
        ({}, {"started": Started.UNKNOWN}, Step.FAIL),
        ({}, {"started": Started.YES}, Step.FAIL),
        ({}, {"started": Started.NEVER, "uid": None}, Step.FAIL),  # refused by the API server
        ({"expired": True}, {"started": Started.NEVER}, Step.FAIL),
        ({}, {"started": Started.NEVER, "cause": Cause.CANCELLED}, Step.FAIL),
        ({"relaunch_limit": 0}, {"started": Started.NEVER}, Step.FAIL),
        ({"attempt": 3}, {"started": Started.NEVER, "attempt": 3}, Step.RELAUNCH),
        ({"attempt": 4}, {"started": Started.NEVER, "attempt": 4}, Step.FAIL),
    ],
)
def test_which_failures_are_relaunched(values, seen, step: Step) -> None:
    number = seen.pop("attempt", 1)
    failure = event(PodState.FAILED, number, **{"cause": Cause.IMAGE_PULL, **seen})
    assert next_step(view(**values), failure) is step


def test_an_expired_launch_of_which_nothing_newer_can_be_had_fails() -> None:
    expired = event(PodState.FAILED, uid=None, cause=Cause.EXPIRED, started=Started.NEVER)
    assert next_step(view(), expired) is Step.FAIL
    assert next_step(view(renewable=True), expired) is Step.RENEW


@pytest.mark.parametrize(
    ("known", "told", "expected"),
    [
        ("uid", "uid", Whose.SAME),
        ("uid", "another", Whose.OTHER),
        (None, "uid", Whose.SAME),  # the first that is seen
        ("uid", None, Whose.SAME),  # a launcher's word, or a user's, on the attempt itself
    ],
)
def test_whose_pod_of_the_present_attempt(known, told, expected) -> None:
    assert whose(view(uid=known), event(PodState.RUNNING, uid=told)) is expected


states = st.sampled_from(list(PodState))
histories = st.lists(
    st.builds(
        event,
        states,
        st.integers(1, 4),
        started=st.sampled_from(list(Started)),
        uid=st.sampled_from([None, "uid-1", "uid-2"]),
    ),
    max_size=30,
)


@given(histories, st.integers(0, 3))
def test_any_history_ends_once_and_never_repeats_a_proven_start(history, limit) -> None:
    """Duplicated, reordered and delayed events included."""
    phase, attempt, uid = Phase.PUBLISHED, 1, None
    finals = 0
    for seen in history:
        step = next_step(View(phase, attempt, uid, limit), seen)
        if step is Step.IGNORE:
            continue
        assert phase is not Phase.DONE
        assert seen.attempt.number >= attempt
        attempt, uid, phase = seen.attempt.number, seen.uid, PHASE_OF[seen.state]
        if step is Step.RELAUNCH:
            assert seen.started is Started.NEVER
            assert attempt <= limit
            attempt, uid, phase = attempt + 1, None, Phase.PUBLISHED
        if step in (Step.SUCCEED, Step.FAIL):
            finals += 1
    assert finals <= 1


def seen(**values) -> Evidence:
    return Evidence(**{"now": NOW, "recorded": True, **values})


COMPLETE = {"complete_at": NOW, "since": NOW - 2 * WINDOW}


@pytest.mark.parametrize(
    ("name", "known", "attempt_known", "evidence", "action"),
    [
        ("lost record of ours", None, True, seen(recorded=False), Repair.PUBLISH),
        ("lost record, adopted, no picture", None, False, seen(recorded=False), Repair.WAIT),
        (
            "lost record, adopted, picture younger than the window",
            None,
            False,
            seen(recorded=False, complete_at=NOW, since=NOW - WINDOW // 2),
            Repair.WAIT,
        ),
        (
            "lost record, adopted, settled picture",
            None,
            False,
            seen(recorded=False, **COMPLETE),
            Repair.PUBLISH,
        ),
        ("message waits", None, True, seen(waiting=True), Repair.WAIT),
        ("message lost before any grant", None, True, seen(), Repair.PUBLISH),
        ("granted, window open", None, True, seen(create_before=NOW + 1), Repair.WAIT),
        ("granted, picture too old", None, True, seen(create_before=NOW - 1), Repair.WAIT),
        (
            "granted, window over, absence proven",
            None,
            True,
            seen(create_before=NOW - PICTURE_MARGIN_MS - 1, **COMPLETE),
            Repair.PUBLISH,
        ),
        (
            "granted, window over, pod present",
            None,
            True,
            seen(create_before=NOW - PICTURE_MARGIN_MS - 1, present=True, **COMPLETE),
            Repair.WAIT,
        ),
        ("dead, window open", None, True, seen(dead=True, create_before=NOW + 1), Repair.WAIT),
        ("dead, never granted", None, True, seen(dead=True), Repair.DEAD),
        (
            "missed event",
            None,
            True,
            seen(event=event(PodState.RUNNING), uid="uid-1", version=5, present=True),
            Repair.APPLY,
        ),
        (
            "known event, pod present",
            event(PodState.RUNNING),
            True,
            seen(event=event(PodState.RUNNING), uid="uid-1", version=5, present=True, **COMPLETE),
            Repair.WAIT,
        ),
        (
            "pod gone from a newer picture",
            event(PodState.RUNNING),
            True,
            seen(event=event(PodState.RUNNING), uid="uid-1", version=5, checkpoint=6, **COMPLETE),
            Repair.VANISHED,
        ),
        (
            "pod not yet in an older picture",
            event(PodState.PENDING),
            True,
            seen(event=event(PodState.PENDING), uid="uid-1", version=5, checkpoint=5, **COMPLETE),
            Repair.WAIT,
        ),
        (
            "pod gone, picture incomplete",
            event(PodState.RUNNING),
            True,
            seen(event=event(PodState.RUNNING), uid="uid-1", version=5, checkpoint=6),
            Repair.WAIT,
        ),
        (
            "pod gone, a create may still be under way",
            event(PodState.PENDING),
            True,
            seen(
                event=event(PodState.PENDING),
                uid="uid-1",
                version=5,
                checkpoint=6,
                create_before=NOW + 1,
                **COMPLETE,
            ),
            Repair.WAIT,
        ),
    ],
)
def test_repair(name, known, attempt_known, evidence, action) -> None:
    assert repair(known, attempt_known, WINDOW, evidence) is action, name


@pytest.mark.parametrize(
    ("state", "started"), [(PodState.RUNNING, Started.YES), (PodState.PENDING, Started.UNKNOWN)]
)
def test_vanished_is_a_failure_that_is_never_repeated(state: PodState, started: Started) -> None:
    failure = vanished(event(state), 6)
    assert (failure.state, failure.cause, failure.started) == (
        PodState.FAILED,
        Cause.VANISHED,
        started,
    )
    assert next_step(view(Phase.RUNNING, uid="uid-1"), failure) is Step.FAIL
