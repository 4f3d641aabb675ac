"""Container logs: the end of a file, and what is appended to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_BLOCK = 65536
_POLL = 0.1


def tail(path: Path, lines: int | None) -> int:
    """Where the last `lines` lines of a file begin; 0 for all of it, or without a file."""
    if lines is None or not path.exists():
        return 0
    with path.open("rb") as log_file:
        end = position = log_file.seek(0, 2)
        if lines <= 0:
            return end
        found = b""
        # One line end more than lines: the one before the first of them.
        while position > 0 and found.rstrip(b"\n").count(b"\n") < lines:
            position = max(0, position - _BLOCK)
            log_file.seek(position)
            found = log_file.read(end - position)
    kept = found.splitlines(keepends=True)[-lines:]
    return end - sum(map(len, kept))


async def follow(path: Path, start: int, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What stands in a file from `start` on, and what comes until `ended` says so."""
    while True:
        over = ended()
        if path.exists():
            with path.open("rb") as log_file:
                log_file.seek(start)
                while piece := log_file.read(_BLOCK):
                    start += len(piece)
                    yield piece
        if over:
            return
        await asyncio.sleep(_POLL)
