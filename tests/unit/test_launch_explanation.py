"""The plain sentence about a launch, for everything that can hold it up or end it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.launch_detail import Detail, Message
from kbroker.launch_explanation import explain
from kbroker.launch_reply import Record
from kbroker.result_stream import WatchProgress
from kbroker.task import Launch, TaskKey

NOW = 1_000_000
LAUNCH = Launch("prod", TaskKey("dag", "task", "run"), "launch")
RECORD = Record("wanted", "exec-1", 1)
NOWHERE = Message()
SEEN = Detail(LAUNCH, "default", "default", RECORD, NOW)
QUEUED = Message("queued", queue="launch.default.normal", ahead=3, length=9, newest_look=100)


def event(state: PodState, cause: Cause | None = None, message: str = "", **more) -> PodEvent:
    pod = {"uid": "u", "started": Started.YES, **more}
    return PodEvent(
        LAUNCH.attempt(1), "default", "default", "pod", state,
        cause=cause, message=message or None, **pod,
    )  # fmt: skip


def seen(message: Message = NOWHERE, record: dict | None = None, **fields) -> Detail:
    return replace(SEEN, message=message, record=replace(RECORD, **(record or {})), **fields)


def of(state: PodState, cause: Cause | None = None, message: str = "", **more) -> dict:
    return {"event": event(state, cause, message, **more)}


PENDING, RUNNING = of(PodState.PENDING), of(PodState.RUNNING, node="n1")
QUOTA = of(PodState.WAITING, Cause.QUOTA, "no room in the namespace: pods=3", uid=None)

WAITS = [
    (seen(replace(QUEUED, newest_look=None)), "No launcher is running for queue launch.default"),
    (seen(replace(QUEUED, newest_look=90_000)), "No launcher is running: the last one looked"),
    (seen(QUEUED), "It waits for a launcher, with 3 before it in the queue."),
    (seen(replace(QUEUED, ahead=1000)), "with more than 1000 before it"),
    (seen(replace(QUEUED, ahead=0)), "It is next"),
    (seen(Message("in hand", holder="l-1", held_for=4000)), "Launcher l-1 has it in hand for 4 s."),
    (seen(Message("in hand"), not_before=NOW + 5000), "asked all launchers to wait for 5 s"),
    (
        seen(Message("parked", due=NOW + 9000), QUOTA),
        "It is parked: no room in the namespace: pods=3; launchers look for room once a second.",
    ),
    (seen(Message("parked")), "It is parked; a launcher tries again in 0 s."),
    (seen(record={"create_before": NOW + 7000}, launcher="l-1"), "its permission ends in 7 s."),
    (seen(), "Its message is on no queue and no pod is known"),
    (seen(record=PENDING), "Its pod exists and has not started yet."),
    (
        seen(record=of(PodState.PENDING, Cause.UNSCHEDULABLE, "0/3 nodes are available")),
        "Its pod has not started: 0/3 nodes are available.",
    ),
    (seen(record=RUNNING), "It is running on node n1."),
    (seen(record={**PENDING, "condemned": b"{}"}), "Its pod is being stopped"),
    (seen(record={**PENDING, "attempt": 3}), "It was launched again 2 times"),
    (seen(QUEUED, {"attempt": 2}), "It was launched again once"),
    (
        seen(record=RUNNING, leads=False, watched=WatchProgress(leader="w-1")),
        "No watcher leads (w-1 was the last)",
    ),
    (seen(QUEUED, owner_alive=False, owner_seen=NOW - 60_000), "exec-1 is gone, last seen 60 s"),
    (seen(QUEUED, owner_alive=False), "Its executor exec-1 is gone:"),
    (seen(Message("dead"), {"dead": "killed 3 launchers"}), "is dead: killed 3 launchers."),
    (seen(record={"state": "withdrawn"}, reason="revoked"), "It was withdrawn: revoked."),
    (
        seen(
            record={
                "state": "withdrawn",
                **of(PodState.FAILED, Cause.CANCELLED, "cancelled by a@b"),
            }
        ),
        "It was cancelled by a@b.",
    ),
    (seen(record=of(PodState.SUCCEEDED)), "It succeeded."),
    (
        seen(record=of(PodState.FAILED, Cause.ERROR, "boom", exit_code=3)),
        "It failed with exit code 3: boom.",
    ),
    (
        seen(record=of(PodState.FAILED, Cause.EVICTED, started=Started.NEVER)),
        "its executor may launch it again.",
    ),
]


@pytest.mark.parametrize(("detail", "sentence"), WAITS, ids=[text for _, text in WAITS])
def test_the_sentence(detail: Detail, sentence: str) -> None:
    assert sentence in explain(detail)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_words(cause: Cause) -> None:
    text = explain(seen(record=of(PodState.FAILED, cause, "because")))
    assert text.endswith("because.")
    assert cause.value == "error" or not text.startswith("It failed")


def test_what_matters_not_is_not_said() -> None:
    text = explain(seen(record={"state": "final", **of(PodState.SUCCEEDED)}, owner_alive=False))
    assert text == "It succeeded."
