"""Container logs: parts of a file, the times of its lines, and what is appended to it."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kbroker.local.cluster.spawner import TIME_RECORD

_BLOCK = 65536
_POLL = 0.1
_SECOND = 1_000_000_000


class LogFile:
    """One container's output.

    Args:
        path: of the log; its times are beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._times = path.with_name(path.name + ".times")

    def begin(self, lines: int | None, since: int | None) -> int:
        """Where to begin reading.

        Args:
            lines: only so many at the end; None for all.
            since: only what came after this (ns since the epoch); None for all.
        """
        start = 0 if lines is None else _tail(self.path, lines)
        if since is not None:
            start = max(start, self._offset(since))
        return start

    def read(self, start: int) -> bytes:
        """What stands in the log from an offset on."""
        if not self.path.exists():
            return b""
        with self.path.open("rb") as log_file:
            log_file.seek(start)
            return log_file.read()

    async def follow(self, start: int, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
        """What stands in the log from an offset on, and what comes until `ended` says so."""
        while True:
            over = ended()
            if self.path.exists():
                with self.path.open("rb") as log_file:
                    log_file.seek(start)
                    while piece := log_file.read(_BLOCK):
                        start += len(piece)
                        yield piece
            if over:
                return
            await asyncio.sleep(_POLL)

    def times(self) -> list[tuple[int, int]]:
        """Offset of each piece of output, and when it was read (ns since the epoch)."""
        if not self._times.exists():
            return []
        data = self._times.read_bytes()
        return list(TIME_RECORD.iter_unpack(data[: len(data) // TIME_RECORD.size * 16]))

    def _offset(self, since: int) -> int:
        """Where the first line begins that was begun after a moment."""
        for offset, read_at in self.times():
            if read_at >= since:
                return self._line_start(offset)
        return self.path.stat().st_size if self.path.exists() else 0

    def _line_start(self, offset: int) -> int:
        if offset == 0:
            return 0
        with self.path.open("rb") as log_file:
            log_file.seek(offset - 1)
            if log_file.read(1) == b"\n":
                return offset
            # The line was begun by an earlier piece: it came before.
            return offset + len(log_file.readline())


@dataclass
class Stamps:
    """Puts the time before each line of a log, piece by piece.

    Attributes:
        log: whose times.
        offset: where the next piece begins.
    """

    log: LogFile
    offset: int
    _at_line_start: bool = True

    def __call__(self, piece: bytes) -> bytes:
        """The piece with times."""
        times = self.log.times()
        offsets = [offset for offset, _ in times]
        stamped = []
        for line in piece.splitlines(keepends=True):
            if self._at_line_start and times:
                position = max(0, bisect.bisect_right(offsets, self.offset) - 1)
                stamped.append(_stamp(times[position][1]))
            stamped.append(line)
            self.offset += len(line)
            self._at_line_start = line.endswith(b"\n")
        return b"".join(stamped)


def _stamp(moment: int) -> bytes:
    whole = datetime.fromtimestamp(moment // _SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{moment % _SECOND:09d}Z ".encode()


def _tail(path: Path, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    if not path.exists():
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
    kept = found.split(b"\n")
    if kept[-1] == b"":
        kept.pop()
        return end - sum(len(line) + 1 for line in kept[-lines:])
    return end - sum(len(line) + 1 for line in kept[-lines:]) + 1


def last_lines(path: Path, lines: int, size: int) -> str:
    """The last lines of a file, and of them not more than the last `size` bytes."""
    if not path.exists():
        return ""
    with path.open("rb") as log_file:
        end = log_file.seek(0, 2)
        log_file.seek(max(_tail(path, lines), end - size))
        return log_file.read().decode(errors="replace")
