"""What the scripts of the launch record answer, and the record itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kbroker.event import PodEvent
from kbroker.result_stream import with_verdict
from kbroker.task_state import Evidence
from kbroker.value import Value


class Granted(Value, frozen=True):
    """Permission to create: until `create_before`; both in ms by Redis' clock."""

    create_before: int
    now: int


class Refused(Value, frozen=True):
    """No permission.

    Attributes:
        why: lease, owner, absent, withdrawn, final, attempt, launched, waiting,
            window, dead or expired.
        create_before: until when an earlier grant may still create the pod, ms by
            Redis' clock; 0 if the attempt was never granted or it is not known.
        now: Redis' clock in ms; 0 if it is not known.
        detail: the present owner, attempt or entry, where that is the reason.
    """

    why: str
    create_before: int = 0
    now: int = 0
    detail: str = ""


class Published(Value, frozen=True):
    """The launch is on its queue under this stream id."""

    entry: str


@dataclass(frozen=True, slots=True)
class Record:
    """A launch record as it stands in Redis.

    Attributes:
        state: wanted, withdrawn or final.
        owner: id of the executor that gets its events.
        attempt: the present attempt, from 1.
        create_before: until when a grant of this attempt may create, ms; 0 if not granted.
        entry: stream id of its queue entry, "parked", or "".
        event: the last event; None before the first.
        uid: uid of the pod that runs the attempt.
        condemned: the verdict that the watcher passed on the pod.
        dead: why its message could not be processed; "" if it could.
        event_at: when the last event was applied, ms by Redis' clock.
    """

    state: str
    owner: str
    attempt: int
    create_before: int = 0
    entry: str = ""
    event: PodEvent | None = None
    uid: str | None = None
    condemned: bytes | None = None
    dead: str = ""
    event_at: int = 0

    @classmethod
    def from_hash(cls, fields: Mapping[bytes, bytes]) -> Record:
        """Read what HGETALL gives.

        Raises:
            MessageError: the last event cannot be read.
        """
        event = fields.get(b"event")
        uid = fields.get(b"uid")
        return cls(
            state=fields[b"state"].decode(),
            owner=fields.get(b"owner", b"").decode(),
            attempt=int(fields.get(b"attempt", b"1")),
            create_before=int(fields.get(b"create_before", b"0")),
            entry=fields.get(b"entry", b"").decode(),
            event=None if event is None else PodEvent.decode(event),
            uid=None if uid is None else uid.decode(),
            condemned=fields.get(b"condemned"),
            dead=fields.get(b"dead", b"").decode(),
            event_at=int(fields.get(b"event_at", b"0")),
        )


@dataclass(frozen=True, slots=True)
class Adopted:
    """The launch is ours now (or always was).

    Attributes:
        record: as it stands.
        present: whether the picture has the attempt's pod.
        complete_at: until when the picture is complete, ms by Redis' clock; 0 while it is not.
        checkpoint: the resource version up to which it is complete.
        waiting: whether its message waits in its queue or is parked.
    """

    record: Record
    present: bool
    complete_at: int
    checkpoint: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """No record and no pod in the picture; times in ms by Redis' clock.

    Attributes:
        complete_at: until when the picture is complete; 0 while it is not.
        since: when the picture was complete for the first time since Redis has data; 0 for never.
    """

    complete_at: int
    since: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a request to cancel; times in ms by Redis' clock.

    Attributes:
        outcome: ok, unknown (no record), final (it has ended) or withdrawn (it had been
            cancelled or revoked before).
        create_before: until when a grant may still create the pod; 0 if none was given.
        now: Redis' clock.
        attempt: the record's attempt; 0 without one.
        pod: name of its pod; "" if none was seen.
        version: resource version at which the pod was seen last.
    """

    outcome: str
    create_before: int = 0
    now: int = 0
    attempt: int = 0
    pod: str = ""
    version: int = 0


def published(reply: Any) -> Published | Refused:
    """Read what the script of that name answers."""
    outcome = reply[0].decode()
    detail = reply[1].decode() if len(reply) > 1 else ""
    if outcome == "ok":
        return Published(detail)
    return Refused(outcome, create_before=int(detail) if outcome == "window" else 0, detail=detail)


def granted(reply: Any) -> Granted | Refused:
    """Read what the script of that name answers."""
    outcome, create_before, now = reply[0].decode(), int(reply[1]), int(reply[2])
    if outcome == "ok":
        return Granted(create_before, now)
    return Refused(outcome, create_before, now)


def cancelled(reply: Any) -> Cancelled:
    """Read what the script of that name answers."""
    outcome, create_before, now, attempt, pod, version = reply
    return Cancelled(
        outcome.decode(), int(create_before), int(now), int(attempt), pod.decode(), int(version)
    )


def adopted(reply: Any) -> Adopted | Missing | Refused:
    """Read what the script of that name answers."""
    outcome = reply[0].decode()
    if outcome in ("adopted", "rewritten"):
        fields = reply[1]
        record = Record.from_hash(dict(zip(fields[::2], fields[1::2], strict=True)))
        return Adopted(record, bool(reply[2]), int(reply[3]), int(reply[4]), bool(reply[5]))
    if outcome == "missing":
        return Missing(int(reply[1]), int(reply[2]))
    return Refused(outcome, detail=reply[1].decode() if len(reply) > 1 else "")


def next_cursor(reply: bytes) -> str | None:
    """Where a scan goes on; None at its end, "" without the lease."""
    return {b"-1": "", b"0": None}.get(reply, reply.decode())


def evidence(reply: Adopted | Missing, now: int) -> Evidence:
    """What a look-up proves, for the rules of reconciliation.

    Args:
        reply: the answer to `LaunchRecords.adopt`.
        now: Redis' clock in ms.
    """
    if isinstance(reply, Missing):
        return Evidence(now, False, complete_at=reply.complete_at, since=reply.since)
    record = reply.record
    event = record.event and with_verdict(record.event, record.condemned)
    return Evidence(
        now=now,
        recorded=True,
        event=event,
        uid=record.uid,
        version=0 if record.event is None else record.event.resource_version,
        create_before=record.create_before,
        dead=bool(record.dead),
        present=reply.present,
        complete_at=reply.complete_at,
        checkpoint=reply.checkpoint,
        waiting=reply.waiting,
    )
