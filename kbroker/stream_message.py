"""Stream entries as dramatiq sees them: how they are read, and the calls made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dramatiq
import orjson
from dramatiq.broker import MessageProxy

from kbroker.errors import BrokerUnavailableError, MessageError
from kbroker.queue_entry import QueueEntry, Unfinished
from kbroker.stream_queue import Delivery

if TYPE_CHECKING:
    from kbroker.stream_consumer import StreamConsumer

# Of what `dramatiq.Message.encode` writes, that which is read, or passed on to it.
_TYPES: dict[str, type] = {
    "actor_name": str,
    "args": list,
    "kwargs": dict,
    "options": dict,
    "message_id": str,
}


class EntriesProxy(MessageProxy):
    """One call of an actor, and the stream entries that it stands for.

    Attributes:
        entries: what the call is made with.
        holder: the consumer that was handed the entries. dramatiq acknowledges through
            the queue's present consumer, which after a pause is another one.
    """

    def __init__(
        self, message: dramatiq.Message[Any], entries: list[QueueEntry], holder: StreamConsumer
    ) -> None:
        super().__init__(message)
        self.entries = entries
        self.holder = holder

    @property
    def ids(self) -> list[str]:
        """The entries' stream ids."""
        return [entry.id for entry in self.entries]

    @property
    def exception(self) -> BaseException | None:
        """What the actor raised; dramatiq puts it here before it acknowledges."""
        return self._exception

    def outcome(self) -> tuple[list[str], list[str]]:
        """Ids of the entries that are done, and of those to be left for later, uncounted.

        All others are to be delivered again; without a word of the actor, that is all.
        """
        if self.exception is None:
            return self.ids, []
        if isinstance(self.exception, BrokerUnavailableError):
            return [], self.ids  # the messages are not to blame
        if not isinstance(self.exception, Unfinished):
            return [], []
        retry, later = self.exception.retry, self.exception.later
        done = [entry for entry in self.ids if entry not in retry | later]
        return done, [entry for entry in self.ids if entry in later]

    @classmethod
    def of(cls, message: MessageProxy) -> EntriesProxy:
        """The same message, which dramatiq passes around as a general one.

        Raises:
            TypeError: it did not come from this broker.
        """
        if not isinstance(message, cls):
            raise TypeError(f"{message!r} did not come from this broker")
        return message


def batches(entries: Iterable[QueueEntry], sizes: Mapping[str, int]) -> list[list[QueueEntry]]:
    """Entries as calls: of one actor each, in order, and no more than its size (by its name)."""
    made: list[list[QueueEntry]] = []
    growing: dict[str, list[QueueEntry]] = {}
    for entry in entries:
        batch = growing.get(entry.actor)
        if batch is None or len(batch) >= sizes[entry.actor]:
            batch = growing[entry.actor] = []
            made.append(batch)
        batch.append(entry)
    return made


def read_entry(queue: str, delivery: Delivery) -> QueueEntry:
    """What an entry of the stream `queue` says.

    Raises:
        MessageError: it is not a message of dramatiq; says why, without its content.
    """
    if not delivery.message:
        raise MessageError("it has no field 'message'")
    try:
        fields = orjson.loads(delivery.message)
    except ValueError:
        raise MessageError("no JSON") from None  # its cause would quote the content
    if not isinstance(fields, dict):
        raise MessageError("it is not an object")
    for name, kind in _TYPES.items():
        if name not in fields:
            raise MessageError(f"it has no field {name!r}")
        if not isinstance(fields[name], kind):
            raise MessageError(f"{name!r} is not a {kind.__name__}")
    return QueueEntry(
        delivery.id,
        queue,
        fields["actor_name"],
        tuple(fields["args"]),
        fields["kwargs"],
        delivery.deliveries,
        delivery.message,
    )
