"""One connection to the API server: one request, one whole answer, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import httptools

from kbroker.value import Value

# What tells where the body ends.
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))


class Answer(Value, frozen=True):
    """What the API server answered.

    Attributes:
        status: HTTP status.
        words: beside it, as they came.
        fields: the headers, as they came.
        body: all of it.
    """

    status: int
    words: bytes
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes

    @property
    def phrase(self) -> str:
        """The words beside the status."""
        return self.words.decode("latin-1")

    @property
    def headers(self) -> dict[str, str]:
        """By their names in lower case; nobody asks unless a request was refused."""
        return {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in self.fields}


class KubeConnection(asyncio.Protocol):
    """Sends requests and reads answers; made by the event loop's `create_connection`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._begin()
        self.usable = False

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Send a request, head and body; its answer, waited for so long.

        After a failure, and when it is cancelled, the connection must be closed.

        Raises:
            TimeoutError: no answer came in time.
            OSError: the connection broke.
        """
        self._answer = self._loop.create_future()
        self._transport.write(request)
        # A timer of the loop costs a fraction of `asyncio.timeout`.
        late = self._loop.call_later(seconds, self._fail, TimeoutError())
        try:
            return await self._answer
        finally:
            late.cancel()

    def close(self) -> None:
        """Close it at once, whatever is under way."""
        self.usable = False
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        if self._answer is None:
            self.close()  # nobody asked: what follows could be taken for the next answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self.usable = False
        if error is None and self._to_the_end:
            self.on_message_complete()
        else:
            self._fail(ConnectionResetError("the server disconnected"))

    # Called by the parser.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._answer is None:  # to what? And to what is the one after it?
            self.usable = False

    def on_status(self, phrase: bytes) -> None:
        """The words beside the status."""
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name, value))
        if name.lower() in _FRAMING:
            self._framed = True

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._to_the_end = not self._framed

    def on_body(self, piece: bytes) -> None:
        """Some of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        if status < 200:  # announces the answer
            self._begin()
            return
        answer = Answer(status, self._phrase, self._headers, b"".join(self._body))
        self.usable = self.usable and self._parser.should_keep_alive()
        self._begin()
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _begin(self) -> None:
        self._phrase = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._framed = False
        # Whether only the end of the connection ends the answer, as of a proxy of old.
        self._to_the_end = False

    def _fail(self, error: OSError) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
