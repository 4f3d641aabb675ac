"""The state machine of a launch, as its executor sees it: rules, no I/O.

`next_step` judges a pod event by `TABLE`, `repair` compares what is wanted with what Redis
and the picture of pods say. Both only decide; the executor carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.value import Value

# A bookmark may have been under way for a moment before it proved anything.
PICTURE_MARGIN_MS = 2_000


class Phase(StrEnum):
    """Where a launch stands for its executor."""

    BUFFERED = "buffered"  # wanted, not yet on the broker
    PUBLISHED = "published"  # on the broker
    WAITING = "waiting"  # a launcher parked it
    PENDING = "pending"  # its pod exists
    RUNNING = "running"  # its container started
    DONE = "done"  # its final state is known


class Step(StrEnum):
    """What to do about an event."""

    IGNORE = "ignore"  # it says nothing new
    NOTE = "note"  # remember it as the new phase
    RELAUNCH = "relaunch"  # publish the next attempt
    RENEW = "renew"  # publish the same attempt with a command that is good for longer
    SUCCEED = "succeed"
    FAIL = "fail"


class Whose(StrEnum):
    """Of which pod an event speaks, as seen from the present attempt."""

    OLDER = "older"  # of an attempt before
    SAME = "same"  # of the present attempt, as far as its pod is known
    OTHER = "other"  # of the present attempt, but of another pod than the known one
    NEWER = "newer"  # of an attempt that only Redis knows, after an adoption


class News(StrEnum):
    """What an event says: the pod's state, and of a failure whether it may be repeated."""

    WAITING = "waiting"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REPEATABLE = "repeatable"  # failed, nothing had started, and another attempt is allowed
    EXPIRED = "expired"  # its command is too old to be launched, and a newer one can be had


# What is asked for every event by its name alone: to look a member up in its class takes longer
# than the rest of a rule, in Python 3.11.
BUFFERED, PUBLISHED, WAITING, PENDING, RUNNING, DONE = Phase
IGNORE, NOTE, RELAUNCH, RENEW, SUCCEED, FAIL = Step
OLDER, SAME, OTHER, NEWER = Whose


def _row(*steps: Step) -> dict[News, Step]:
    return dict(zip(News, steps, strict=True))


#               waiting pending running succeeded failed repeatable expired
_EARLY = _row(NOTE, NOTE, NOTE, SUCCEED, FAIL, RELAUNCH, RENEW)
# A pod that exists was launched in time, whoever else still had its message.
_EXISTS = _row(IGNORE, NOTE, NOTE, SUCCEED, FAIL, RELAUNCH, IGNORE)
# What was seen to run has started, whatever is said later.
_RUNS = _row(IGNORE, IGNORE, NOTE, SUCCEED, FAIL, FAIL, IGNORE)
_NOTHING = dict.fromkeys(News, IGNORE)

# The life of a launch: of which pod, and where it stands → what is said → what to do.
TABLE: dict[Whose, dict[Phase, dict[News, Step]]] = {
    OLDER: dict.fromkeys(Phase, _NOTHING),
    SAME: {
        BUFFERED: _EARLY,  # a message that was thought lost was not
        PUBLISHED: _EARLY,
        WAITING: _EARLY,
        PENDING: _EXISTS,
        RUNNING: _RUNS,
        DONE: _NOTHING,
    },
    OTHER: dict.fromkeys(Phase, _NOTHING),
    NEWER: {**dict.fromkeys(Phase, _EARLY), DONE: _NOTHING},
}

_NEWS_OF = {state: News(state.value) for state in PodState}
_FAILED = PodState.FAILED

PHASE_OF = {
    PodState.WAITING: WAITING,
    PodState.PENDING: PENDING,
    PodState.RUNNING: RUNNING,
    PodState.SUCCEEDED: DONE,
    PodState.FAILED: DONE,
}


class View(Value, frozen=True):
    """What the executor knows of a launch.

    Attributes:
        phase: where it stands.
        attempt: the present attempt, from 1.
        uid: of the pod that runs it, if one was seen.
        relaunch_limit: how many attempts may follow the first.
        expired: whether another attempt would come too late.
        renewable: whether its scheduler has a newer command for one that expired.
    """

    phase: Phase
    attempt: int
    uid: str | None
    relaunch_limit: int
    expired: bool = False
    renewable: bool = False


def next_step(view: View, event: PodEvent) -> Step:
    """Judge a pod event of this launch, by the table."""
    return TABLE[whose(view, event)][view.phase][news(view, event)]


def whose(view: View, event: PodEvent) -> Whose:
    """Of which pod the event speaks."""
    number = event.attempt.number
    if number != view.attempt:
        return OLDER if number < view.attempt else NEWER
    known = view.uid is not None and event.uid is not None
    return OTHER if known and event.uid != view.uid else SAME


def news(view: View, event: PodEvent) -> News:
    """What the event says, given which attempts may follow its own."""
    if event.state is _FAILED and view.renewable and event.cause is Cause.EXPIRED:
        return News.EXPIRED
    if event.state is _FAILED and relaunchable(event):
        allowed = not view.expired and event.attempt.number <= view.relaunch_limit
        return News.REPEATABLE if allowed else News.FAILED
    return _NEWS_OF[event.state]


def relaunchable(event: PodEvent) -> bool:
    """Whether a failure may be repeated: a pod existed, and provably nothing started.

    What a user cancelled is never repeated.
    """
    if event.cause is Cause.CANCELLED:
        return False
    return event.started is Started.NEVER and event.uid is not None


class Repair(StrEnum):
    """What to do about a launch that reconciliation looked at."""

    WAIT = "wait"  # nothing is wrong, or nothing is proven yet
    APPLY = "apply"  # the record holds an event that we missed
    PUBLISH = "publish"  # its message is lost: publish the same attempt again
    VANISHED = "vanished"  # its pod is gone and nobody saw how it ended
    DEAD = "dead"  # its message could not be processed and no pod came of it


@dataclass(frozen=True, slots=True)
class Evidence:
    """What Redis says about one launch; times in ms by Redis' clock.

    Attributes:
        now: Redis' clock.
        recorded: whether there is a launch record.
        event: the record's last event.
        uid: uid of its pod according to the record.
        version: resource version of the last event.
        create_before: until when a grant may still create the pod.
        dead: whether its message went to the dead stream.
        present: whether the picture has its pod.
        complete_at: until when the picture is complete; 0 while it is not.
        checkpoint: up to which resource version it is complete.
        since: when the picture was complete for the first time since Redis has data.
        waiting: whether its message waits in its queue or is parked.
    """

    now: int
    recorded: bool
    event: PodEvent | None = None
    uid: str | None = None
    version: int = 0
    create_before: int = 0
    dead: bool = False
    present: bool = False
    complete_at: int = 0
    checkpoint: int = 0
    since: int = 0
    waiting: bool = False


def repair(known: PodEvent | None, attempt_known: bool, window: int, seen: Evidence) -> Repair:
    """Compare a wanted launch with the evidence.

    Args:
        known: the last event that the executor applied.
        attempt_known: whether the executor itself published it; after an adoption
            without a record the attempt is a guess.
        window: the create window in ms.
        seen: what Redis says.
    """
    if not seen.recorded:
        # A lost record may hide a later attempt's pod, unless the picture shows none
        # and no grant from before the loss can still create one.
        settled = seen.complete_at > 0 and seen.complete_at - seen.since >= window
        return Repair.PUBLISH if attempt_known or settled else Repair.WAIT
    if seen.event is not None and seen.event != known and _newer(seen.event, known):
        return Repair.APPLY
    if seen.uid is not None:
        gone = not seen.present and seen.complete_at > 0 and seen.checkpoint > seen.version
        return Repair.VANISHED if gone and seen.create_before < seen.now else Repair.WAIT
    if seen.waiting or seen.create_before > seen.now or seen.present:
        return Repair.WAIT
    absent = seen.create_before == 0 or (seen.complete_at > seen.create_before + PICTURE_MARGIN_MS)
    if not absent:
        return Repair.WAIT
    return Repair.DEAD if seen.dead else Repair.PUBLISH


def _newer(event: PodEvent, known: PodEvent | None) -> bool:
    if known is None or event.attempt.number != known.attempt.number:
        return known is None or event.attempt.number > known.attempt.number
    return event.final or event.resource_version > known.resource_version
