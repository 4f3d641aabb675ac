"""How the bench talks to its helper processes: JSON, one command or answer a line.

A helper reads commands from its standard input and answers on its standard output; when its
input ends, so does it.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

Command = dict[str, Any]
_LINE_MAX = 1 << 26


def answer(content: Any) -> None:
    """Answer the last command."""
    sys.stdout.buffer.write(orjson.dumps(content) + b"\n")
    sys.stdout.buffer.flush()


class Commands:
    """The commands that come, for a helper that has other things to do in between."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._read = b""
        self.ended = False

    def next(self, seconds: float) -> Command | None:
        """The next command, waited for so long; None if there is none."""
        while b"\n" not in self._read and not self.ended:
            if not select.select([self._input], [], [], max(0.0, seconds))[0]:
                return None
            piece = os.read(self._input, 1 << 16)
            self.ended = not piece
            self._read += piece
        line, newline, self._read = self._read.partition(b"\n")
        return dict(orjson.loads(line)) if newline else None


async def serve(obey: Callable[[Command], Awaitable[Any]]) -> None:
    """Obey commands until the input ends; what goes wrong is the answer."""
    reader = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        try:
            content = await obey(orjson.loads(line))
        except Exception as error:
            # Whatever it was: whoever asked ends with it, and says it.
            content = {"error": f"{type(error).__name__}: {error}"}
        answer(content or {})
