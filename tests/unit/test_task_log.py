"""What is told of a task's log: the end of it, and the sentences beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.launch_detail import Detail
from kbroker.launch_reply import Record
from kbroker.log_message import LogAnswer
from kbroker.task import Launch, TaskKey
from kbroker.task_log import TaskLog, told

LAUNCH = Launch("prod", TaskKey("dag", "task", "run"), "launch")
SEEN = Detail(LAUNCH, "default", "jobs", Record("wanted", "exec-1", 1, uid="u"), 1_000, pod="p")
SOURCE = "pod jobs/p"
GONE = "Its pod no longer exists, and its log went with it."


def seen(
    state: PodState | None, cause: Cause | None = None, message: str = "", **more: Any
) -> Detail:
    if state is None:
        return SEEN
    event = PodEvent(
        LAUNCH.attempt(1), "default", "jobs", "p", state,
        uid="u", started=Started.YES, cause=cause, message=message or None, **more,
    )  # fmt: skip
    return replace(SEEN, record=replace(SEEN.record, event=event))


PENDING, RUNNING = seen(PodState.PENDING), seen(PodState.RUNNING, node="n1")
FAILED = seen(PodState.FAILED, Cause.ERROR, "boom", exit_code=3)
SUCCEEDED = seen(PodState.SUCCEEDED)

TOLD = [
    (
        RUNNING,
        LogAnswer(True, "1\n2\n", PodState.RUNNING),
        "1\n2\n",
        ", container base, last 2 lines",
        ["It is running on node n1."],
    ),
    (
        SUCCEEDED,
        LogAnswer(True, "bye", PodState.SUCCEEDED),
        "bye",
        ", container base, last line",
        ["It succeeded."],
    ),
    (
        FAILED,
        LogAnswer(True, "oh\n", PodState.FAILED, "boom", ("Killing: it",), ("not all is shown",)),
        "oh\n",
        ", container base, last line",
        [
            "It failed with exit code 3: boom.",
            "Kubernetes reported: Killing: it.",
            "Not all is shown.",
        ],
    ),
    (
        RUNNING,
        LogAnswer(True, "", PodState.RUNNING),
        "",
        "",
        ["It is running on node n1.", "Its log is empty."],
    ),
    (
        PENDING,
        LogAnswer(True, "", PodState.PENDING, "", ("FailedScheduling: 0/3 nodes\nare available.",)),
        "",
        "",
        [
            "Its pod exists and has not started yet.",
            "Kubernetes reported: FailedScheduling: 0/3 nodes are available.",
        ],
    ),
    # The watcher is behind, or there is none.
    (
        PENDING,
        LogAnswer(True, "1\n", PodState.FAILED, "boom"),
        "1\n",
        ", container base, last line",
        ["Its pod exists and has not started yet.", "By now its pod has failed: boom."],
    ),
    (
        PENDING,
        LogAnswer(True, "1\n", PodState.SUCCEEDED),
        "1\n",
        ", container base, last line",
        ["Its pod exists and has not started yet.", "By now its pod has succeeded."],
    ),
    (
        seen(None),
        LogAnswer(True, "", PodState.PENDING, "it waits"),
        "",
        "",
        [
            "Its message is on no queue and no pod is known: its executor will publish it again.",
            "By now its pod has not started: it waits.",
        ],
    ),
    # What the executor was told is final; a pod that is looked at later says nothing else of it.
    (
        seen(PodState.FAILED, Cause.DELETED, "evicted by hand"),
        LogAnswer(True, "1\n", PodState.SUCCEEDED),
        "1\n",
        ", container base, last line",
        ["Somebody deleted its pod: evicted by hand."],
    ),
    (FAILED, LogAnswer(False), "", "", ["It failed with exit code 3: boom.", GONE]),
    (
        RUNNING,
        LogAnswer(False, notes=("another pod has taken its name",)),
        "",
        "",
        ["It is running on node n1.", "Another pod has taken its name.", GONE],
    ),
    (
        RUNNING,
        LogAnswer(notes=("the launcher is not ready: no permission.",)),
        "",
        "",
        ["It is running on node n1.", "The launcher is not ready: no permission."],
    ),
    (FAILED, "Nobody answered.", "", "", ["It failed with exit code 3: boom.", "Nobody answered."]),
]


@pytest.mark.parametrize(("known", "found", "text", "source", "notes"), TOLD)
def test_what_is_told(
    known: Detail, found: LogAnswer | str, text: str, source: str, notes: list[str]
) -> None:
    assert told(known, found) == TaskLog(text, SOURCE + source, tuple(notes))


@pytest.mark.parametrize("state", [state for state in PodState if state is not PodState.WAITING])
def test_every_state_of_a_pod_has_words(state: PodState) -> None:
    notes = told(seen(None), LogAnswer(True, "x", state, "because")).notes
    assert notes[-1].startswith("By now its pod ")
    assert notes[-1].endswith(": because.")


def test_a_log_does_not_show() -> None:
    assert "s3cret" not in repr(TaskLog("s3cret", SOURCE, ()))
