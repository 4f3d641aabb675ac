"""A dramatiq broker over Redis Streams.

What it adds to dramatiq's contract: a killed process's messages come back by
Redis' clock; an idle worker starts a message within milliseconds; an actor with
the option `batch_size` is called with a list of the entries that wait; a message
handed out for the second time is handed out alone, and after `max_deliveries` it
is buried with its reason. There are no delayed messages and no retries: an actor
that fails leaves its entries to be delivered again.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
import redis
from dramatiq.asyncio import EventLoopThread, set_event_loop_thread
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import AsyncIO, Middleware

from kbroker.errors import BrokerUnavailableError
from kbroker.hands import Hands
from kbroker.keys import RedisKeys
from kbroker.launcher_record import LauncherRecords
from kbroker.queue_entry import DeadEntry
from kbroker.redis_client import availability, connect, run
from kbroker.renewer import Renewer
from kbroker.stream_consumer import StreamConsumer
from kbroker.stream_queue import QueueStats, StreamQueue, queue_stats


class DaemonAsyncIO(AsyncIO):
    """The event loop for asynchronous actors, in a thread that keeps no dying process alive."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Start the loop."""
        thread = EventLoopThread(self.logger)
        thread.daemon = True
        thread.start(timeout=5.0)
        set_event_loop_thread(thread)


class BatchOption(Middleware):
    """Lets actors be declared with `batch_size`."""

    @property
    def actor_options(self) -> set[str]:
        """The options that this middleware understands."""
        return {"batch_size"}


class StreamsBroker(dramatiq.Broker):
    """See the module.

    Args:
        url: Redis URL; not needed with `client`.
        client: a client to use instead, with RESP2 and without decoding of replies. It stays
            open when the broker is closed.
        prefix: in front of every key.
        redelivery_after: seconds of silence after which an entry goes to another consumer.
        max_deliveries: the next delivery buries the entry.
        block: seconds that one read waits for entries; a worker that stops waits for it.
        middleware: instead of the default: event loop for asynchronous actors.
        bury: called with every dead entry; by default it goes to the dead stream.

    Raises:
        ValueError: neither or both of `url` and `client`, or the client's socket timeout
            would cut a blocking read short.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | None = None,
        prefix: str = "{kbroker}:",
        redelivery_after: float = 15.0,
        max_deliveries: int = 3,
        block: float = 2.0,
        middleware: list[Middleware] | None = None,
        bury: Callable[[DeadEntry], None] | None = None,
    ) -> None:
        if (url is None) == (client is None):
            raise ValueError("a broker needs either a URL or a client")
        if client is not None:
            limit = client.connection_pool.connection_kwargs.get("socket_timeout")
            if limit is not None and limit <= block:
                raise ValueError(f"the client's socket_timeout, {limit} s, must exceed {block} s")
        super().__init__(middleware=[DaemonAsyncIO()] if middleware is None else middleware)
        self.add_middleware(BatchOption())
        self.queues: set[str] = set()
        self.keys = RedisKeys(prefix)
        self._owned = client is None
        self.client = client or connect(url or "", 5.0)
        # A blocking read must not run into its own socket's timeout.
        self.blocking_client = client or connect(url or "", block + 5.0)
        self.redelivery_after = redelivery_after
        self.max_deliveries = max_deliveries
        self.block = block
        self.bury = bury or self._bury
        self.hands = Hands()
        self.renewer = Renewer(redelivery_after / 3)

    # dramatiq's contract.

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; it is created when it is first read or written."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """The declared queues."""
        return set(self.queues)

    def get_declared_delay_queues(self) -> set[str]:
        """None: nothing is delayed here."""
        return set()

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Append a message to its queue.

        Raises:
            ValueError: a delay is asked for.
            QueueNotFound: the queue was never declared.
            ConnectionClosed: Redis is away.
        """
        return self.enqueue_many([message], delay=delay)[0]

    def enqueue_many(
        self, messages: Iterable[dramatiq.Message[Any]], *, delay: int | None = None
    ) -> list[dramatiq.Message[Any]]:
        """Append messages to their queues in one pipeline; otherwise as `enqueue`."""
        if delay is not None:
            raise ValueError("messages cannot be delayed on this broker")
        batch = list(messages)
        for message in batch:
            if message.queue_name not in self.queues:
                raise QueueNotFound(message.queue_name)
        pipe = self.client.pipeline(transaction=False)
        for message in batch:
            self.emit_before("enqueue", message, delay)
            pipe.xadd(self._key(message.queue_name), {"message": message.encode()})
        try:
            with availability():
                pipe.execute()
        except BrokerUnavailableError as error:
            raise ConnectionClosed(str(error)) from error
        for message in batch:
            self.emit_after("enqueue", message, delay)
        return batch

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = 30000
    ) -> dramatiq.Consumer:
        """Read a queue.

        Args:
            queue_name: a declared queue.
            prefetch: calls of actors that may be handed out and unfinished at once.
            timeout: milliseconds after which the iterator gives None when idle.

        Raises:
            QueueNotFound: the queue was never declared.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        queue = StreamQueue(self.blocking_client, self._key(queue_name), name)
        consumer = StreamConsumer(self, queue, queue_name, prefetch, timeout / 1000)
        self.renewer.watch(consumer)
        return consumer

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue."""
        with availability():
            self.client.delete(self._key(queue_name))
        StreamQueue(self.client, self._key(queue_name), "").create()

    def flush_all(self) -> None:
        """Drop all messages of all declared queues."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until a queue is empty and everything handed out is acknowledged.

        Raises:
            QueueNotFound: the queue was never declared.
            QueueJoinTimeout: not within `timeout` milliseconds.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while self._length(queue_name):
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(0.02)

    def close(self) -> None:
        """Stop renewing and close the connections."""
        self.renewer.stop()
        if self._owned:
            self.client.close()
            self.blocking_client.close()

    # Beyond dramatiq.

    def queue_stats(self, queue_name: str) -> QueueStats:
        """How long a queue is and what is being worked on.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        return queue_stats(self.client, self._key(queue_name))

    def batch_size(self, queue_name: str) -> int:
        """How many entries one read of the queue may take."""
        sizes = [
            int(actor.options.get("batch_size", 1))
            for actor in self.actors.values()
            if actor.queue_name == queue_name
        ]
        return max(sizes, default=1)

    def _length(self, queue_name: str) -> int:
        with availability():
            return int(self.client.xlen(self._key(queue_name)))

    def _key(self, queue_name: str) -> str:
        return self.keys.prefix + queue_name

    def _bury(self, dead: DeadEntry) -> None:
        records = LauncherRecords(self.keys, 0, 0)
        run(self.client, [records.bury(dead.queue, dead.id, dead.reason, dead.raw, None)])
