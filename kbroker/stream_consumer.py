"""The consumer of one queue in one worker process: from stream entries to actor calls."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

from kbroker.errors import BrokerUnavailableError
from kbroker.queue_entry import DeadEntry, QueueEntry, Unfinished
from kbroker.stream_queue import Delivery, StreamQueue

if TYPE_CHECKING:
    from kbroker.broker import StreamsBroker

log = logging.getLogger(__name__)

UNREADABLE = (DecodeError, TypeError, AttributeError, ValueError)

# Entries that may be handed out side by side, each by itself, up to this delivery.
_TOGETHER = 2
_TAKEN_AT_ONCE = 25
_SOLITUDE_POLL = 0.05
_ACK_TRIES = 5
_ACK_WAIT = 0.5


class EntriesProxy(MessageProxy):
    """One call of an actor, and the stream entries that it stands for."""

    def __init__(self, message: dramatiq.Message[Any], entries: list[QueueEntry]) -> None:
        super().__init__(message)
        self.entries = entries

    @property
    def ids(self) -> list[str]:
        """The entries' stream ids."""
        return [entry.id for entry in self.entries]

    @property
    def exception(self) -> BaseException | None:
        """What the actor raised; dramatiq puts it here before it acknowledges."""
        return self._exception


class StreamConsumer(dramatiq.Consumer):
    """Reads only while fewer than `prefetch` calls are unfinished, so that others get their share.

    Args:
        broker: whose actors are called.
        queue: the stream, as this consumer.
        queue_name: the queue's name for dramatiq.
        prefetch: calls handed out and unfinished at once.
        timeout: seconds after which `next` gives None.
    """

    def __init__(
        self,
        broker: StreamsBroker,
        queue: StreamQueue,
        queue_name: str,
        prefetch: int,
        timeout: float,
    ) -> None:
        self.closed = False
        self._broker = broker
        self._queue = queue
        self._queue_name = queue_name
        self._timeout = timeout
        self._slots = threading.Semaphore(prefetch)
        self._ready: deque[EntriesProxy] = deque()
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._scan_at = 0.0
        self._away = False
        self._unknown: set[str] = set()
        self._wants_solitude = self._in_solitude = False

    def __next__(self) -> EntriesProxy | None:
        """The next call to make; None when nothing came within the timeout."""
        if not self._broker.hands.may_take(self) or self._in_solitude:
            time.sleep(_SOLITUDE_POLL)
            return None
        if not self._slots.acquire(timeout=self._timeout):
            return None
        proxy = self._next()
        if proxy is None:
            self._slots.release()
            if self._wants_solitude:
                time.sleep(_SOLITUDE_POLL)
        else:
            self._broker.hands.take()
        return proxy

    def _next(self) -> EntriesProxy | None:
        try:
            if not self._ready:
                self._scan()
            if not self._ready and not self._wants_solitude:
                self._fill()
            if self._away:
                log.warning("%s: Redis is back", self._queue.key, extra={"action": "redis-back"})
                self._away = False
        except BrokerUnavailableError as error:
            if not self._away:
                log.warning("%s: %s", self._queue.key, error, extra={"action": "redis-away"})
                self._away = True
            time.sleep(min(self._timeout, 0.5))
        return self._ready.popleft() if self._ready else None

    def _scan(self) -> None:
        """Take over what silent consumers left; each entry is handed out by itself."""
        if time.monotonic() < self._scan_at:
            return
        if self._scan_at == 0.0:
            self._queue.create()
            self._queue.retire(closing=False)
        fresh: list[QueueEntry] = []
        passed_over = self._reclaim(fresh, _TAKEN_AT_ONCE, highest=_TOGETHER)
        self._batch(fresh)
        interval = self._broker.redelivery_after / 3 * random.uniform(0.8, 1.2)
        if passed_over and not self._ready:
            interval = _SOLITUDE_POLL
            # One that was handed out twice already may be what kills processes: it gets
            # this process to itself, so that only it can be counted out.
            self._wants_solitude = True
            if self._broker.hands.alone(self):
                self._reclaim(fresh, 1, highest=self._broker.max_deliveries)
                self._in_solitude = bool(self._ready)
                if not self._ready:
                    self._end_solitude()
        elif not passed_over:
            self._end_solitude()
        self._scan_at = time.monotonic() + interval

    def _reclaim(self, fresh: list[QueueEntry], limit: int, *, highest: int) -> bool:
        """Hand out what can be taken over; True if entries with more deliveries are left.

        Args:
            fresh: takes entries that nobody had begun, for batches.
            limit: how many to take over.
            highest: entries that were handed out more often are left.
        """
        deliveries, passed_over = self._queue.reclaim(
            self._broker.redelivery_after,
            limit=limit,
            highest=highest,
            dead=self._broker.max_deliveries,
        )
        for delivery in deliveries:
            if delivery.deliveries > self._broker.max_deliveries:
                self._bury(delivery, f"handed out {delivery.deliveries - 1} times, never finished")
                continue
            entry = self._decoded(delivery)
            if entry is not None and delivery.deliveries == 1:
                fresh.append(entry)
            elif entry is not None:
                self._hand_out([entry])
        return passed_over

    def _end_solitude(self) -> None:
        self._wants_solitude = self._in_solitude = False
        self._broker.hands.no_longer_alone(self)

    def _fill(self) -> None:
        """Wait for new entries; those of one read form the batches."""
        wait = min(self._broker.block, max(0.0, self._scan_at - time.monotonic()))
        size = self._broker.batch_size(self._queue_name)
        decoded = (self._decoded(d) for d in self._queue.read(size, min(wait, self._timeout * 2)))
        self._batch([entry for entry in decoded if entry is not None])

    def _batch(self, entries: list[QueueEntry]) -> None:
        batches: dict[str, list[QueueEntry]] = {}
        for entry in entries:
            size = int(self._broker.get_actor(entry.actor).options.get("batch_size", 1))
            if size == 1:
                self._hand_out([entry])
                continue
            batch = batches.setdefault(entry.actor, [])
            batch.append(entry)
            if len(batch) == size:
                self._hand_out(batches.pop(entry.actor))
        for batch in batches.values():
            self._hand_out(batch)

    def _hand_out(self, entries: list[QueueEntry]) -> None:
        if "batch_size" in self._broker.get_actor(entries[0].actor).options:
            message: dramatiq.Message[Any] = dramatiq.Message(
                self._queue_name, entries[0].actor, (entries,), {}, {}
            )
        else:
            message = dramatiq.Message.decode(entries[0].raw).copy(queue_name=self._queue_name)
        with self._lock:
            self._held.update(entry.id for entry in entries)
        self._ready.append(EntriesProxy(message, entries))

    def _decoded(self, delivery: Delivery) -> QueueEntry | None:
        """The entry, if this process can work on it."""
        try:
            entry = _entry(self._queue.key, delivery)
        except UNREADABLE as error:
            self._bury(delivery, f"not a message: {error}")
            return None
        if entry.actor in self._broker.actors:
            return entry
        if entry.actor not in self._unknown:
            self._unknown.add(entry.actor)
            log.error(
                "%s: no actor %r in this process; its messages are left to others",
                self._queue.key,
                entry.actor,
                extra={"action": "unknown-actor"},
            )
        self._queue.later([entry.id])
        return None

    def _bury(self, delivery: Delivery, reason: str) -> None:
        try:
            entry = _entry(self._queue.key, delivery)
        except UNREADABLE:
            entry = None
        log.error(
            "%s %s is dead: %s", self._queue.key, delivery.id, reason, extra={"action": "dead"}
        )
        self._broker.bury(DeadEntry(delivery.id, self._queue.key, delivery.message, reason, entry))

    # What becomes of a call.

    def ack(self, message: MessageProxy) -> None:
        """The call is over: acknowledge what is done, leave what is not.

        Raises:
            ConnectionClosed: Redis stayed away; dramatiq tries again.
        """
        message = _ours(message)
        done, later = set(message.ids), frozenset[str]()
        if isinstance(message.exception, Unfinished):
            later = message.exception.later & done
            done -= later | message.exception.retry
        elif message.exception is not None:
            done = set()
        self._patiently(lambda: self._queue.acknowledge(sorted(done)))
        self._patiently(lambda: self._queue.later(sorted(later)))
        self._let_go(message)

    def nack(self, message: MessageProxy) -> None:
        """The message was rejected by a middleware: it is dead."""
        message = _ours(message)
        for entry in message.entries:
            dead = DeadEntry(entry.id, entry.queue, entry.raw, "rejected", entry)
            self._patiently(lambda dead=dead: self._broker.bury(dead))
        self._let_go(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """The worker stops: what it has not begun goes to others at once."""
        for message in messages:
            ours = _ours(message)
            self._queue.release(ours.ids)
            self._let_go(ours)

    def renew(self) -> None:
        """Say that everything handed out here is being worked on."""
        with self._lock:
            held = sorted(self._held)
        for start in range(0, len(held), 500):
            self._queue.renew(held[start : start + 500])

    def close(self) -> None:
        """Give back what was read and not handed out."""
        self.closed = True
        self._end_solitude()
        try:
            while self._ready:
                self._queue.release(self._ready.popleft().ids)
            self._queue.retire(closing=True)
        except BrokerUnavailableError as error:
            raise ConnectionClosed(str(error)) from error

    def _let_go(self, message: EntriesProxy) -> None:
        with self._lock:
            self._held.difference_update(message.ids)
        self._broker.hands.let_go()
        if self._in_solitude:
            self._end_solitude()
        self._slots.release()

    def _patiently(self, step: Any) -> None:
        for left in reversed(range(_ACK_TRIES)):
            try:
                step()
            except BrokerUnavailableError as error:
                if not left:
                    raise ConnectionClosed(str(error)) from error
                time.sleep(_ACK_WAIT)
            else:
                return


def _ours(message: MessageProxy) -> EntriesProxy:
    if not isinstance(message, EntriesProxy):
        raise TypeError(f"{message!r} did not come from this consumer")
    return message


def _entry(queue: str, delivery: Delivery) -> QueueEntry:
    message = dramatiq.Message.decode(delivery.message)
    return QueueEntry(
        delivery.id,
        queue,
        message.actor_name,
        tuple(message.args),
        dict(message.kwargs),
        delivery.deliveries,
        delivery.message,
    )
