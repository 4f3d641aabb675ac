"""Requests for logs, taken one by one and answered beside everything else that a launcher does.

Somebody sits and waits for the answer, most of all while launches are stuck. So these
requests do not wait for a thread of dramatiq's, which a launch may hold for as long as
`kubernetes.retry_budget`; and a request is taken only when there is a hand free for it,
so that many do not keep launches from the event loop, and other launchers get their share.

A request is handed out once. Nothing is lost with it but an answer, for which nobody
waits longer than some seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import redis.asyncio

from kbroker.errors import BrokerUnavailableError, MessageError
from kbroker.keys import RedisKeys
from kbroker.launch_reasons import not_ready
from kbroker.log_message import LogAnswer, LogRequest
from kbroker.redis_client import availability

log = logging.getLogger(__name__)

# Seconds that one look at the queue waits; the client's `socket_timeout` must be longer.
BLOCK = 2.0
_AT_ONCE = 8
# Seconds: the most that an answer takes, and the part of the time left that it may take.
_WITHIN = 2.0
_SHARE = 0.7
_KEPT = 10_000  # ms that an answer waits to be fetched
_AGAIN_AFTER = 1.0


class Reading(Protocol):
    """See `LogReading`."""

    async def read(self, request: LogRequest, ends: float) -> LogAnswer:
        """What can be told by then."""


class LogService:
    """Takes requests and answers them.

    Args:
        reading: reads logs.
        client: connection to Redis, of the same event loop; see `BLOCK`.
        keys: names of the keys.
        cluster: name of the cluster.
        refusal: why the API server does not accept the launcher; "" while it does.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        reading: Reading,
        client: redis.asyncio.Redis,
        keys: RedisKeys,
        cluster: str,
        *,
        refusal: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reading = reading
        self._client = client
        self._keys = keys
        self._queue = keys.log_queue(cluster)
        self._refusal = refusal
        self._sleep = sleep
        self._hands = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._away = False

    async def run(self) -> None:
        """Serve until cancelled; then what was begun is answered yet."""
        try:
            while True:
                await self._hands.acquire()
                try:
                    data = await self._next()
                except BaseException:
                    # Cancelled, too: a hand that is not given back is missing for ever.
                    self._hands.release()
                    raise
                if data is None:
                    self._hands.release()
                else:
                    self._begin(data)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _next(self) -> bytes | None:
        """The next request; None when none came for a while."""
        try:
            with availability():
                popped: Any = await self._client.blpop([self._queue], timeout=BLOCK)
            self._away = False
            return None if popped is None else bytes(popped[1])
        except (BrokerUnavailableError, redis.ResponseError) as error:
            if not self._away:
                log.warning("log requests wait: %s", error, extra={"action": "redis-away"})
                self._away = True
        await self._sleep(_AGAIN_AFTER)
        return None

    def _begin(self, data: bytes) -> None:
        task = asyncio.create_task(self._serve(data))
        self._tasks.add(task)

        def over(_task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._hands.release()

        task.add_done_callback(over)

    async def _serve(self, data: bytes) -> None:
        try:
            request = LogRequest.decode(data)
            with availability():
                seconds, micros = await self._client.time()
            left = request.until / 1000 - (int(seconds) + int(micros) / 1e6)
            if left <= 0:
                return  # nobody waits for it any more
            answer = await self._answer(request, min(_WITHIN, left * _SHARE))
            await self._send(request, answer)
        except MessageError as error:
            log.error("a log request is dropped: %s", error, extra={"action": "unreadable"})
        except BrokerUnavailableError as error:
            log.warning("a log request is not answered: %s", error, extra={"action": "redis-away"})
        except Exception:
            log.exception("a log request is not answered", extra={"action": "unexpected"})

    async def _answer(self, request: LogRequest, within: float) -> LogAnswer:
        refusal = self._refusal()
        if refusal:
            return LogAnswer(notes=(not_ready(refusal),))
        try:
            ends = asyncio.get_running_loop().time() + within
            return await self._reading.read(request, ends)
        except Exception:
            log.exception("a log cannot be read", extra={"action": "unexpected"})
            return LogAnswer(
                notes=("the launcher failed to read the log: what it wrote itself says why",)
            )

    async def _send(self, request: LogRequest, answer: LogAnswer) -> None:
        key = self._keys.reply(request.reply)
        pipe = self._client.pipeline(transaction=True)
        pipe.rpush(key, answer.encode())
        pipe.pexpire(key, _KEPT)
        with availability():
            await pipe.execute()
