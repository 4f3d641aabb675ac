"""The lines of one watch, as its connection brings them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp

from kbroker.kube_answer import answering

# To take in a few lines costs hardly more than one. So many seconds pass between two reads of a
# watch, unless there is so much to read that its buffer could fill up meanwhile.
_TOGETHER, _MANY = 0.02, 25


async def watch_lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Complete lines that come together; what follows soon after others is kept for one list.

    Raises:
        ApiError: the connection broke.
    """
    parts: list[bytes] = []  # of a line that has not ended yet; it may be megabytes long
    with answering(sent=True):
        async for piece in response.content.iter_any():
            if b"\n" not in piece:
                parts.append(piece)
                continue
            *lines, rest = b"".join((*parts, piece)).split(b"\n")
            parts = [rest] if rest else []
            soon = time.monotonic() + _TOGETHER
            yield lines
            if len(lines) < _MANY:
                await asyncio.sleep(soon - time.monotonic())
