"""What an actor gets of a queue, and how it says what is not done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kbroker.value import Value


class QueueEntry(Value, frozen=True):
    """One message of a batch.

    Attributes:
        id: stream id.
        queue: full key of the stream.
        actor: name of the actor that it is for.
        args: positional arguments of the message.
        kwargs: keyword arguments of the message.
        deliveries: how often it was handed out, this time included.
        raw: the message as it stands in the queue.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"args", "kwargs", "raw"})

    id: str
    queue: str
    actor: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    deliveries: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class DeadEntry:
    """A message that will not be handed out again.

    Attributes:
        id: stream id.
        queue: full key of the stream.
        raw: the message as it stands in the queue.
        deliveries: how often an actor was called with it.
        reason: why, in words.
        entry: the decoded message; None where it cannot be decoded.
    """

    id: str
    queue: str
    raw: bytes = field(repr=False)
    deliveries: int
    reason: str
    entry: QueueEntry | None


class Unfinished(Exception):  # noqa: N818 - it is an answer, not an error
    """Raised by a batch actor: these entries are not done, all others are.

    Args:
        retry: ids to be delivered again, alone; it counts towards their death.
        later: ids that this process cannot work on; it does not count.
    """

    def __init__(self, *, retry: Collection[str] = (), later: Collection[str] = ()) -> None:
        super().__init__(f"{len(retry)} to be tried again, {len(later)} left for later")
        self.retry = frozenset(retry)
        self.later = frozenset(later)
