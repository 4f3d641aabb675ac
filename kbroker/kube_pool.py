"""Connections to one API server, kept and used again.

A launcher's CPU goes into HTTP above all. aiohttp serves every kind of server, body and
redirect, and takes nearly three times as much of it per request as this, which knows one server,
whole bodies and JSON: `make bench` measures a loop around aiohttp beside the launchers. What is
hard about HTTP stays with libraries: parsing with httptools, TLS with Python.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from functools import lru_cache
from urllib.parse import urlsplit

from kbroker.kube_answer import ApiError, answering, untrusted
from kbroker.kube_connection import Answer, KubeConnection
from kbroker.kube_credentials import Credentials
from kbroker.retry import ApiFailure

# Shorter than the API server's own 90 s, so that it never closes one that we are about to use.
KEEP_ALIVE = 60.0

Headers = tuple[tuple[str, str], ...]


def within(ends: float) -> asyncio.Timeout:
    """Give up at this moment, in seconds of `time.monotonic`."""
    return asyncio.timeout(ends - time.monotonic())


class KubePool:
    """Asks one API server; for one event loop.

    Args:
        credentials: where it is, and who we are.
        size: connections at once, at most.
        connect_timeout: seconds in which a connection must be made.
    """

    def __init__(self, credentials: Credentials, size: int, connect_timeout: float) -> None:
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._places = asyncio.Semaphore(size)
        self._idle: deque[tuple[float, KubeConnection]] = deque()
        self._made_for: object = None

    async def ask(
        self,
        request: answering,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        ends: float,
    ) -> Answer:
        """Send a request; the answer, whatever its status.

        Args:
            request: told when some of it may have been sent.
            method: of HTTP.
            path: below the server's URL, with the query.
            headers: without Host and Content-Length.
            body: b"" for none.
            ends: when it is given up, whatever it waits for, in seconds of `time.monotonic`.

        Raises:
            ApiError: there is no connection.
            TimeoutError: no answer came in time.
            OSError: the connection broke.
        """
        if self._places.locked():
            async with within(ends):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            connection = self._kept() or await self._connect(ends)
            head = _head(self._credentials.server, method, path, headers, body)
            try:
                left = ends - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                request.sent = True
                answer = await connection.ask(head + body, left)
            except BaseException:
                # Cancelled, too: its answer would be taken for that of the next request.
                connection.close()
                raise
            if connection.usable:
                self._idle.append((time.monotonic(), connection))
            else:
                connection.close()
            return answer
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self) -> KubeConnection | None:
        """A connection that is open; the one used last, so that the others may grow old."""
        credentials = self._credentials
        made_for = (credentials.server, credentials.server_name, credentials.tls)
        if made_for != self._made_for:
            self.close()
            self._made_for = made_for
        old = time.monotonic() - KEEP_ALIVE
        while self._idle and self._idle[0][0] < old:
            self._idle.popleft()[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.usable:
                return connection
        return None

    async def _connect(self, ends: float) -> KubeConnection:
        """A new connection.

        Raises:
            ApiError: there is none; says why.
        """
        url = urlsplit(self._credentials.server)
        secure = url.scheme == "https"
        host, port = url.hostname or "", url.port or (443 if secure else 80)
        where = f"{host}:{port}"
        try:
            async with within(min(ends, time.monotonic() + self._connect_timeout)):
                _, connection = await asyncio.get_running_loop().create_connection(
                    KubeConnection,
                    host,
                    port,
                    ssl=self._credentials.tls if secure else None,
                    server_hostname=self._credentials.server_name if secure else None,
                )
        except TimeoutError:
            raise _unsent("timeout", "no connection in time") from None
        except socket.gaierror as error:
            raise _unsent("dns", f"unknown host {host}") from error
        except ssl.SSLCertVerificationError as error:
            raise _unsent("tls", f"{where} cannot be trusted: {untrusted(error)}") from error
        except OSError as error:
            kind = "tls" if isinstance(error, ssl.SSLError) else "refused"
            why = error.strerror or str(error)
            raise _unsent(kind, f"cannot connect to {where}: {why}") from error
        return connection


def _head(server: str, method: str, path: str, headers: Headers, body: bytes) -> bytes:
    prefix, lines = _same_for_all(server, headers)
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {prefix}{path} HTTP/1.1\r\n{lines}{length}\r\n".encode("latin-1")


@lru_cache(maxsize=16)
def _same_for_all(server: str, headers: Headers) -> tuple[str, str]:
    """What stands in front of every path, and the header lines that all such requests have."""
    url = urlsplit(server)
    lines = [f"Host: {url.netloc}", *(f"{name}: {value}" for name, value in headers)]
    return url.path, "".join(f"{line}\r\n" for line in lines)


def _unsent(kind: str, why: str) -> ApiError:
    return ApiError(ApiFailure(0, kind, why, sent=False))
