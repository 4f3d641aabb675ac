"""The consumer of one queue in one worker process: from stream entries to actor calls."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import ConnectionClosed

from kbroker.errors import BrokerUnavailableError, MessageError
from kbroker.queue_entry import DeadEntry, QueueEntry
from kbroker.stream_message import EntriesProxy, batches, read_entry
from kbroker.stream_queue import Delivery, StreamQueue

if TYPE_CHECKING:
    from kbroker.broker import StreamsBroker

log = logging.getLogger(__name__)

_ACK_TRIES = 5
_ACK_WAIT = 0.5

# Entries that may be handed out side by side, up to this delivery.
_TOGETHER = 1
_TAKEN_AT_ONCE = 25
_SOLITUDE_POLL = 0.05
# Seconds between two looks for consumers of processes that are gone.
_RETIRE_INTERVAL = 600.0


class StreamConsumer(dramatiq.Consumer):
    """Reads only while fewer than `calls` calls are unfinished, so that others get their share.

    Redis being away ends no consumer: it waits, says so once, and goes on.

    Args:
        broker: whose actors are called.
        queue: the stream, as this consumer.
        queue_name: the queue's name for dramatiq.
        calls: calls handed out and unfinished at once.
        timeout: seconds after which `next` gives None.
    """

    def __init__(
        self,
        broker: StreamsBroker,
        queue: StreamQueue,
        queue_name: str,
        calls: int,
        timeout: float,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._queue_name = queue_name
        self._timeout = timeout
        self._slots = threading.Semaphore(calls)
        self._ready: deque[EntriesProxy] = deque()
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._scan_interval = broker.redelivery_after / 3
        self._scan_at = self._retire_at = 0.0
        self._closed = self._away = self._more = False
        self._wants_solitude = self._in_solitude = False
        self._unknown: set[str] = set()

    @property
    def key(self) -> str:
        """Full name of the stream."""
        return self._queue.key

    @property
    def over(self) -> bool:
        """Whether it is closed and nothing that it handed out is unfinished."""
        return self._closed and not self._held

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
            if not self._ready and self._more:
                self._more = False
                self._fill(0.0)  # what is new takes turns with what has to be taken over
            if not self._ready:
                self._scan()
            if not self._ready and not self._wants_solitude:
                self._fill(self._broker.block)
            if self._away:
                log.warning("%s: Redis is back", self.key, extra={"action": "redis-back"})
                self._away = False
        except BrokerUnavailableError as error:
            if not self._away:
                log.warning("%s: %s", self.key, error, extra={"action": "redis-away"})
                self._away = True
            self._postpone_scan()
            if not self._in_solitude:
                self._end_solitude()
            time.sleep(min(self._timeout, 0.5))
        return self._ready.popleft() if self._ready else None

    def _scan(self) -> None:
        """Take over what silent consumers left; each entry is handed out by itself."""
        now = time.monotonic()
        if now < self._scan_at:
            return
        if now >= self._retire_at:
            self._retire_at = now + _RETIRE_INTERVAL
            self._queue.retire(closing=False)
        # A process that was stopped for long must not take over from itself.
        self._broker.renewer.renew(self.key)
        passed_over = self._reclaim(_TAKEN_AT_ONCE, highest=_TOGETHER)
        interval = self._scan_interval * random.uniform(0.8, 1.2)
        if passed_over and not self._ready:
            # One that was handed out already may be what kills processes: it gets this
            # process to itself, so that of its neighbours' deaths only one counts for it.
            self._wants_solitude = True
            if self._broker.hands.alone(self):
                self._reclaim(1, highest=self._broker.max_deliveries)
                self._in_solitude = bool(self._ready)
                if not self._ready:
                    self._end_solitude()
        elif not passed_over:
            self._end_solitude()
        if passed_over:
            interval = _SOLITUDE_POLL  # the next one's turn comes as soon as this one is done
        self._scan_at = 0.0 if self._more else time.monotonic() + interval

    def _reclaim(self, limit: int, *, highest: int) -> bool:
        """Hand out what can be taken over; True if entries with more deliveries are left.

        Args:
            limit: how many to take over.
            highest: entries that were handed out more often are left.
        """
        allowed = self._broker.max_deliveries
        deliveries, passed_over = self._queue.reclaim(
            self._broker.redelivery_after, limit=limit, highest=highest, dead=allowed
        )
        self._more = len(deliveries) == _TAKEN_AT_ONCE
        fresh: list[QueueEntry] = []
        for delivery in deliveries:
            if delivery.deliveries > allowed:
                self._bury(delivery, f"handed out {allowed} times, never finished")
                continue
            entry = self._decoded(delivery)
            if entry is not None and delivery.deliveries == 1:
                fresh.append(entry)
            elif entry is not None:
                self._hand_out([entry])
        self._hand_out_all(fresh)
        return passed_over

    def _end_solitude(self) -> None:
        self._wants_solitude = self._in_solitude = False
        self._broker.hands.no_longer_alone(self)

    def _postpone_scan(self) -> None:
        """After an outage, let every process renew first what it still works on."""
        self._scan_at = time.monotonic() + self._scan_interval * 1.5

    def _fill(self, block: float) -> None:
        """Wait `block` seconds at most for new entries; those of one read form the batches."""
        wait = min(block, max(0.0, self._scan_at - time.monotonic()))
        size = self._broker.batch_size(self._queue_name)
        decoded = (self._decoded(d) for d in self._queue.read(size, min(wait, self._timeout * 2)))
        self._hand_out_all([entry for entry in decoded if entry is not None])

    def _hand_out_all(self, entries: list[QueueEntry]) -> None:
        sizes = {
            entry.actor: int(self._broker.get_actor(entry.actor).options.get("batch_size", 1))
            for entry in entries
        }
        for batch in batches(entries, sizes):
            self._hand_out(batch)

    def _hand_out(self, entries: list[QueueEntry]) -> None:
        message: dramatiq.Message[Any]
        if "batch_size" in self._broker.get_actor(entries[0].actor).options:
            message = dramatiq.Message(self._queue_name, entries[0].actor, (entries,), {}, {})
        else:
            message = dramatiq.Message.decode(entries[0].raw).copy(queue_name=self._queue_name)
        with self._lock:
            self._held.update(entry.id for entry in entries)
        self._ready.append(EntriesProxy(message, entries, self))

    def _decoded(self, delivery: Delivery) -> QueueEntry | None:
        """The entry, if this process can work on it."""
        try:
            entry = read_entry(self.key, delivery)
        except MessageError as error:
            self._bury(delivery, f"not a message: {error}")
            return None
        if entry.actor in self._broker.actors:
            return entry
        if entry.actor not in self._unknown:
            self._unknown.add(entry.actor)
            log.error(
                "%s: no actor %r in this process; its messages are left to others",
                self.key,
                entry.actor,
                extra={"action": "unknown-actor"},
            )
        self._queue.later([entry.id])
        return None

    def _bury(self, delivery: Delivery, reason: str) -> None:
        try:
            entry = read_entry(self.key, delivery)
        except MessageError:
            entry = None
        log.error("%s %s is dead: %s", self.key, delivery.id, reason, extra={"action": "dead"})
        calls = delivery.deliveries - 1
        self._give_up(DeadEntry(delivery.id, self.key, delivery.message, calls, reason, entry))

    def _give_up(self, dead: DeadEntry) -> None:
        try:
            self._broker.bury(dead)
        except BrokerUnavailableError:
            raise
        except Exception:
            # It falls due again; the queue's other entries must not wait for it.
            log.exception("%s %s cannot be buried", self.key, dead.id, extra={"action": "bury"})

    # What becomes of a call.

    def ack(self, message: MessageProxy) -> None:
        """The call is over: acknowledge what is done, leave what is not.

        Raises:
            ConnectionClosed: Redis stayed away; dramatiq tries again.
        """
        call = EntriesProxy.of(message)
        call.holder._settle(call)

    def nack(self, message: MessageProxy) -> None:
        """The message was rejected by a middleware: it is dead.

        Raises:
            ConnectionClosed: Redis stayed away; dramatiq tries again.
        """
        call = EntriesProxy.of(message)
        reason = f"rejected: {call.exception}" if call.exception else "rejected"
        for entry in call.entries:
            dead = DeadEntry(entry.id, entry.queue, entry.raw, entry.deliveries, reason, entry)
            _patiently(partial(self._give_up, dead))
        call.holder._let_go(call)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """The worker stops: what it has not begun goes to others at once.

        Raises:
            ConnectionClosed: Redis is away; others take it when it has been idle for long.
        """
        calls = [EntriesProxy.of(message) for message in messages]
        for call in calls:
            call.holder._let_go(call)
        try:
            for call in calls:
                call.holder._release(call)
        except BrokerUnavailableError as error:
            raise ConnectionClosed(str(error)) from error

    def renew(self) -> None:
        """Say that everything handed out here is being worked on.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        with self._renewing:
            with self._lock:
                held = sorted(self._held)
            try:
                for start in range(0, len(held), 500):
                    self._queue.renew(held[start : start + 500])
            except BrokerUnavailableError:
                self._postpone_scan()
                raise

    def close(self) -> None:
        """Give back what was read and not handed out.

        Raises:
            ConnectionClosed: Redis is away.
        """
        self._closed = True
        if not self._in_solitude:
            self._end_solitude()
        try:
            while self._ready:
                call = self._ready.popleft()
                self._forget(call)
                self._release(call)
            self._queue.retire(closing=True)
        except BrokerUnavailableError as error:
            raise ConnectionClosed(str(error)) from error

    def _settle(self, call: EntriesProxy) -> None:
        done, later = call.outcome()
        _patiently(partial(self._queue.acknowledge, done))
        _patiently(partial(self._queue.later, later))
        self._let_go(call)

    def _release(self, call: EntriesProxy) -> None:
        # A renewal on its way would make the entry look busy again.
        with self._renewing:
            self._queue.release(call.ids)

    def _forget(self, call: EntriesProxy) -> None:
        with self._lock:
            self._held.difference_update(call.ids)

    def _let_go(self, call: EntriesProxy) -> None:
        self._forget(call)
        self._broker.hands.let_go()
        if self._in_solitude:
            self._end_solitude()
        self._slots.release()


def _patiently(step: Callable[[], None]) -> None:
    for left in reversed(range(_ACK_TRIES)):
        try:
            step()
        except BrokerUnavailableError as error:
            if not left:
                raise ConnectionClosed(str(error)) from error
            time.sleep(_ACK_WAIT)
        else:
            return
