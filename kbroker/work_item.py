"""One message in a launcher's hands, and what becomes of it.

A message comes from a queue or, after it was parked, from the parked set. Either
way it is worked on alike and ends in exactly one of the outcomes below, which
`settled` turns into the calls that record it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import orjson

from kbroker.errors import KbrokerError, MessageError, NewerSchemaError
from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.launcher_record import LauncherRecords
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.naming import pod_name
from kbroker.queue_entry import QueueEntry
from kbroker.redis_client import Call
from kbroker.rooms import Rooms
from kbroker.task import Launch, TaskKey
from kbroker.value import Value

M = TypeVar("M", DeleteMessage, SecretMessage)

_PARKING = "parked"


class Parking(Value, frozen=True):
    """A message's history in the parked set; times in ms by Redis' clock.

    Attributes:
        times: how often it was parked.
        since: when it was parked first; 0 if it never was.
        maybe_until: until when a request that got no answer may still create the pod;
            0 when every request was answered.
        failures: how often working on it failed in an unexpected way.
    """

    times: int = 0
    since: int = 0
    maybe_until: int = 0
    failures: int = 0

    @classmethod
    def of(cls, body: object) -> Parking:
        """Read what `WorkItem.payload` wrote; a message that was never parked has none."""
        fields = body.get(_PARKING) if isinstance(body, dict) else None
        if not isinstance(fields, dict):
            return cls()
        known = {name: fields.get(name, 0) for name in cls.__struct_fields__}
        return cls(**{n: v if isinstance(v, int) else 0 for n, v in known.items()})

    def again(self, now: int) -> Parking:
        """Parked once more at `now`."""
        return self.changed(times=self.times + 1, since=self.since or now)


class WorkItem(Value, frozen=True):
    """A message to work on.

    Attributes:
        id: stream id, or name of the parked item.
        queue: full key of the stream; "" for a parked item.
        body: the message as decoded JSON.
        raw: the message as it stood in Redis.
        deliveries: how often it was handed out, this time included.
        parking: its history in the parked set.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"body", "raw"})

    id: str
    queue: str
    body: object
    raw: bytes
    deliveries: int = 1
    parking: Parking = Parking()

    @classmethod
    def from_entry(cls, entry: QueueEntry) -> WorkItem:
        """A message from a queue."""
        body = entry.args[0] if entry.args else None
        return cls(entry.id, entry.queue, body, entry.raw, entry.deliveries, Parking.of(body))

    @classmethod
    def from_parked(cls, item: str, payload: bytes) -> WorkItem:
        """A message from the parked set."""
        try:
            body = orjson.loads(payload)
        except ValueError:
            body = None
        return cls(item, "", body, payload, parking=Parking.of(body))

    @property
    def entry(self) -> tuple[str, str] | None:
        """Queue and stream id; None for a parked item."""
        return (self.queue, self.id) if self.queue else None

    @property
    def in_doubt(self) -> bool:
        """Whether an earlier request may have created its pod."""
        return self.deliveries > 1 or self.parking.maybe_until > 0

    @property
    def has_workload(self) -> bool:
        """Whether a launch is not over with its pod's creation: the pod waits for its workload."""
        return isinstance(self.body, dict) and self.body.get("workload") is not None

    @property
    def waited_as(self) -> str | None:
        """A launch's name in the parked set, "" if it was not parked; None where it is in doubt."""
        if self.in_doubt:
            return None
        return "" if self.queue else self.id

    def payload(self, parking: Parking) -> bytes:
        """The message as it is parked."""
        history = {name: getattr(parking, name) for name in Parking.__struct_fields__}
        body = self.body if isinstance(self.body, dict) else {}
        return orjson.dumps({**body, _PARKING: history})


class Done(Value, frozen=True):
    """Nothing more is to be done."""


class Report(Value, frozen=True):
    """The owner is told how the launch stands.

    Attributes:
        event: tells it.
        found_room: whether it was let into a namespace that had been full.
        verdict: cause and words, where its pod is to be stopped because it cannot start.
    """

    event: PodEvent
    found_room: bool = False
    verdict: tuple[Cause, str] | None = None


class Park(Value, frozen=True):
    """It waits for `delay` seconds under the name `item`.

    Attributes:
        item: name in the parked set.
        delay: seconds.
        parking: its history, this time included.
        event: tells the owner why a launch waits; None for a removal.
        no_room: the API server's words, where a launch waits for room in its namespace; ""
            if it was not asked. None where it waits for something else.
    """

    item: str
    delay: float
    parking: Parking
    event: PodEvent | None = None
    no_room: str | None = None


class Leave(Value, frozen=True):
    """It stays on its queue, uncounted, for another launcher or a later time.

    Attributes:
        event: tells the owner why it waits, if anything is to be told.
    """

    event: PodEvent | None = None


class Bury(Value, frozen=True):
    """It cannot be processed: it goes to the dead stream.

    Attributes:
        reason: why, in words.
        event: the failure of its task; None where the envelope cannot be read.
    """

    reason: str
    event: PodEvent | None = None


Outcome = Done | Report | Park | Leave | Bury


def settled(
    records: LauncherRecords, cluster: str, item: WorkItem, outcome: Outcome
) -> list[Call[Any]]:
    """The calls that record an outcome.

    They acknowledge a parked item and an entry that is parked or buried; any other
    entry is acknowledged by its consumer.
    """
    calls: list[Call[Any]] = []
    match outcome:
        case Park():
            payload = item.payload(outcome.parking)
            return [
                records.park(
                    cluster,
                    outcome.item,
                    payload,
                    outcome.delay,
                    entry=item.entry,
                    event=outcome.event,
                    even_launched=item.has_workload,
                )
            ]
        case Leave():
            return [] if outcome.event is None else [records.report(outcome.event)]
        case Report():
            calls.append(records.report(outcome.event))
            if outcome.verdict is not None:
                calls.append(records.stop(outcome.event, *outcome.verdict))
        case Bury():
            queue, entry = item.entry or (records.keys.parked(cluster), "")
            calls.append(records.bury(queue, entry, outcome.reason, item.raw, outcome.event))
    if item.entry is None:
        calls.append(records.unpark(cluster, item.id))
    return calls


def room_settled(rooms: Rooms, outcome: Outcome) -> list[Call[Any]]:
    """The calls that follow those of `settled`, where there was no room in a namespace."""
    match outcome:
        case Park(event=PodEvent() as event, no_room=str(why)):
            return [rooms.wait(event.namespace, outcome.item, why)]
        case Report(found_room=True):
            return [rooms.found(outcome.event.namespace)]
    return []


def read_launch(item: WorkItem, cluster: str) -> LaunchMessage | Bury:
    """The launch message of an item, or why it is dead.

    Raises:
        NewerSchemaError: it is for a newer kbroker.
    """
    try:
        message = LaunchMessage.from_dict(item.body)
    except MessageError as error:
        if type(error) is not MessageError:
            raise
        return Bury(str(error), _envelope_failed(item.body, cluster, str(error)))
    if message.cluster != cluster:
        reason = f"for cluster {message.cluster!r} on a queue of cluster {cluster!r}"
        return Bury(reason, failed(message, Cause.DEAD, reason))
    return message


def read_removal(item: WorkItem, cluster: str) -> DeleteMessage | Bury:
    """The delete message of an item, or why it is dead.

    Raises:
        NewerSchemaError: it is for a newer kbroker.
    """
    return _read(item, cluster, DeleteMessage.from_dict)


def read_secret(item: WorkItem, cluster: str) -> SecretMessage | Bury:
    """The secret message of an item, or why it is dead.

    Raises:
        NewerSchemaError: it is for a newer kbroker.
    """
    return _read(item, cluster, SecretMessage.from_dict)


def _read(item: WorkItem, cluster: str, read: Callable[[object], M]) -> M | Bury:
    """A message that is no launch: no task fails with it."""
    try:
        message = read(item.body)
    except MessageError as error:
        if type(error) is not MessageError:
            raise
        return Bury(str(error))
    if message.cluster != cluster:
        return Bury(f"for cluster {message.cluster!r} on the queue of cluster {cluster!r}")
    return message


def dead(item: WorkItem, cluster: str, reason: str) -> Bury:
    """A message that was worked on too often without coming to an end.

    Its launch does not fail at once: a request may still create the pod. The owner
    is told, and decides when the permission has ended.
    """
    try:
        message = read_launch(item, cluster)
    except NewerSchemaError:
        return Bury(reason)
    if isinstance(message, Bury):
        return Bury(reason, message.event)
    return Bury(reason, waiting(message, Cause.DEAD, reason))


def set_back(
    item: WorkItem, cluster: str, limit: int, delay: float, error: Exception
) -> Park | Bury:
    """A parked message that could not be worked on waits again, `limit` times at most."""
    parking = item.parking.changed(failures=item.parking.failures + 1)
    if parking.failures > limit:
        return dead(item, cluster, f"failed {parking.failures} times, last with: {error!r}")
    # Without its event the item is not looked up in its record: it stays as it is.
    return Park(item.id, delay, parking)


def waiting(message: LaunchMessage, cause: Cause, why: str) -> PodEvent:
    """No pod yet, and why."""
    return PodEvent(
        attempt=message.attempt,
        cluster=message.cluster,
        namespace=message.namespace,
        pod=pod_name(message.attempt),
        state=PodState.WAITING,
        started=Started.NEVER,
        cause=cause,
        message=why,
    )


def failed(message: LaunchMessage, cause: Cause, why: str) -> PodEvent:
    """No pod, and there will be none."""
    return waiting(message, cause, why).changed(state=PodState.FAILED)


def _envelope_failed(body: object, cluster: str, reason: str) -> PodEvent | None:
    """The failure of an unreadable launch whose identity can be read."""
    if not isinstance(body, dict):
        return None
    try:
        launch = Launch(body["deployment"], TaskKey.from_list(body["key"]), body["launch_id"])
        attempt = launch.attempt(body["attempt"])
    except (KeyError, TypeError, KbrokerError):
        return None
    namespace = body.get("namespace")
    return PodEvent(
        attempt=attempt,
        cluster=cluster,
        namespace=namespace if isinstance(namespace, str) else "",
        pod=pod_name(attempt),
        state=PodState.FAILED,
        started=Started.NEVER,
        cause=Cause.DEAD,
        message=f"its launch message cannot be read: {reason}",
    )
