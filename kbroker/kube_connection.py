"""One connection to the API server: one request, one whole answer, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server answered.

    Attributes:
        status: HTTP status.
        phrase: the words beside it.
        headers: by their names in lower case.
        body: all of it.
    """

    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes


class KubeConnection(asyncio.Protocol):
    """Sends requests and reads answers; made by the event loop's `create_connection`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._begin()
        self.usable = False

    async def ask(self, request: bytes) -> Answer:
        """Send a request, head and body; its answer.

        Whoever gives up waiting must `close` the connection.

        Raises:
            OSError: the connection broke.
        """
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return await self._answer

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
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._to_the_end = self._headers.keys().isdisjoint(("content-length", "transfer-encoding"))

    def on_body(self, piece: bytes) -> None:
        """Some of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        status = self._parser.get_status_code()
        if status < 200:  # announces the answer
            self._begin()
            return
        answer = Answer(status, self._phrase.decode("latin-1"), self._headers, b"".join(self._body))
        self.usable = self.usable and self._parser.should_keep_alive()
        self._begin()
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _begin(self) -> None:
        self._phrase = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        # Whether only the end of the connection ends the answer, as of a proxy of old.
        self._to_the_end = False

    def _fail(self, error: OSError) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
