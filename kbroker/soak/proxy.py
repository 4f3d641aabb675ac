"""A TCP proxy between a client and a server that cuts, delays and swallows on demand.

What passes is not understood but for one thing: on a TLS connection only application data counts
as request and answer (record type 23, RFC 8446 section 5.1; the client's first such record ends
its handshake), elsewhere all bytes do.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_HANDSHAKE, _APPLICATION_DATA = 0x16, 23
_HEADER = 5
_GARBAGE = b"kbroker soak: this is neither TLS nor RESP\r\n"
_CONNECT_WITHIN = 5.0
_CHANGED_WITHIN = 30.0


class TcpProxy:
    """Listens on 127.0.0.1; every method but `start` and `stop` may be called at any time.

    Args:
        host: where it leads.
        port: likewise.

    Attributes:
        port: it listens on.
        counts: how often each misbehaviour really happened.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self.counts: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.swallows = False
        self.lag = 0.0
        self.requests_to_cut = self.replies_to_cut = self.replies_to_hold = self.to_garble = 0
        self.answers_to_break = 0
        self.held_for = 0.0
        self.epoch = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> TcpProxy:
        """Listen."""
        self._thread.start()
        self._await(self._listen())
        return self

    def stop(self) -> None:
        """Cut everything, and listen no more."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # How it behaves.

    def behave(self) -> None:
        """Pass everything on again; connections in a black hole are cut."""

        async def change() -> None:
            self.lag = 0.0
            self.requests_to_cut = self.replies_to_cut = 0
            self.replies_to_hold = self.to_garble = self.answers_to_break = 0
            if self.swallows:
                self.swallows = False
                self._cut_all()
            if self._server is None:
                await self._listen()

        self._await(change())

    def cut(self) -> int:
        """Abort every open connection; returns how many there were."""
        return self._do(self._cut_all)

    def refuse(self) -> None:
        """Cut every connection and refuse new ones."""

        async def change() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            self._cut_all()

        self._await(change())

    def black_hole(self) -> None:
        """Pass nothing on and close nothing; new connections are accepted."""
        self._do(lambda: setattr(self, "swallows", True))

    def delay(self, seconds: float) -> None:
        """Deliver what the server sends so much later, in order."""
        self._do(lambda: setattr(self, "lag", seconds))

    def cut_replies(self, times: int) -> None:
        """Let so many requests pass, and cut their connections when the answer comes."""
        self._ask("replies_to_cut", times)

    def break_answers(self, times: int) -> None:
        """Pass on half of what the server says next, and end the connection; so many times.

        Unlike `cut_replies` this meets what is being answered for long already, as a watch is.
        """
        self._ask("answers_to_break", times)

    def hold_replies(self, seconds: float, times: int) -> None:
        """Deliver so many answers so much later."""
        self.held_for = seconds
        self._ask("replies_to_hold", times)

    def cut_requests(self, times: int) -> None:
        """Cut the connections of so many requests instead of passing them on."""
        self._ask("requests_to_cut", times)

    def garble(self, times: int) -> None:
        """Answer so many new connections with garbage."""
        self._ask("to_garble", times)

    # Inside the loop.

    def take(self, what: str) -> bool:
        """Whether one of the asked misbehaviours is left for this; counts it."""
        left: int = getattr(self, what)
        if left <= 0:
            return False
        setattr(self, what, left - 1)
        self.counts[what] += 1
        return True

    def _ask(self, what: str, times: int) -> None:
        def change() -> None:
            self.epoch += 1
            setattr(self, what, times)

        self._do(change)

    def _cut_all(self) -> int:
        cut = list(self.connections)
        for connection in cut:
            connection.abort()
        self.counts["cut"] += len(cut)
        return len(cut)

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _do(self, step: Callable[[], T]) -> T:
        async def run() -> T:
            return step()

        return self._await(run())

    def _await(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(_CHANGED_WITHIN)


class Connection(asyncio.Protocol):
    """The client's side of one connection."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.up = _Upstream(self)
        self._waiting: list[bytes] = []
        self._records = _Records()
        self._asked_in = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come: go to the server for it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport
        self.proxy.connections.add(self)
        if self.proxy.take("to_garble"):
            transport.write(_GARBAGE)
            transport.close()
            return
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self.up, *self.proxy.target)
        except OSError:
            self.abort()

    def connected(self) -> None:
        """The server is reached: what waits goes to it."""
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.up.write(data)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self.proxy.swallows:
            return
        if self._records.request(data):
            self._asked_in = self.proxy.epoch
            if self.proxy.take("requests_to_cut"):
                self.abort()
                return
        if self.up.transport is None:
            self._waiting.append(data)
        else:
            self.up.write(data)

    def answered(self, data: bytes) -> None:
        """The server has sent something."""
        proxy = self.proxy
        if proxy.swallows:
            return
        if proxy.take("answers_to_break"):
            self.transport.write(data[: len(data) // 2])
            self.transport.close()
            return
        lag = proxy.lag
        proxy.counts["delayed"] += lag > 0
        if self._asked_in == proxy.epoch:
            if proxy.take("replies_to_cut"):
                self.abort()
                return
            if proxy.take("replies_to_hold"):
                lag = proxy.held_for
            if proxy.replies_to_hold or proxy.replies_to_cut:
                self._asked_in = -1
        self.up.deliver(data, lag)

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.up.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.up.resume()

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has gone."""
        self.proxy.connections.discard(self)
        if not self.proxy.swallows:
            self.up.close()

    def abort(self) -> None:
        """Cut it: the client gets a reset, the server the end of the stream."""
        self.transport.abort()
        self.up.close()


class _Upstream(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, client: Connection) -> None:
        self.transport: asyncio.Transport | None = None
        self._client = client
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport
        self._client.connected()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._client.answered(data)

    def deliver(self, data: bytes, lag: float) -> None:
        """Hand an answer to the client, never before an earlier one."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._due = max(self._due, now + lag)
        if self._due <= now:
            self._client.transport.write(data)
        else:
            loop.call_at(self._due, self._client.transport.write, data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._client.proxy.swallows:
            return
        left = self._due - asyncio.get_running_loop().time()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._client.transport.close)
        else:
            self._client.transport.close()

    def pause_writing(self) -> None:
        self._client.transport.pause_reading()

    def resume_writing(self) -> None:
        self._client.transport.resume_reading()

    def pause(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _Records:
    """Tells requests from a TLS handshake, by the record headers of what the client sends."""

    def __init__(self) -> None:
        self._tls: bool | None = None
        self._skip = 0
        self._header = b""
        self._seen = 0

    def request(self, data: bytes) -> bool:
        """Whether these bytes begin, or go on with, a request."""
        if self._tls is None:
            self._tls = data[0] == _HANDSHAKE
        if not self._tls:
            return True
        before = self._seen
        position = 0
        while position < len(data):
            passed = min(self._skip, len(data) - position)
            self._skip -= passed
            position += passed
            missing = _HEADER - len(self._header)
            self._header += data[position : position + missing]
            position += missing
            if len(self._header) == _HEADER:
                self._seen += self._header[0] == _APPLICATION_DATA
                self._skip = int.from_bytes(self._header[3:5])
                self._header = b""
        return self._seen > max(before, 1)
