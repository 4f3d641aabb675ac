"""Parts and times of a log file, against a plain reading of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.local.cluster.logs import LogFile, Stamps
from kbroker.local.cluster.spawner import TIME_RECORD

SECOND = 1_000_000_000
PIECES = st.lists(st.text("ab\n\r", min_size=1, max_size=8).map(str.encode), min_size=1, max_size=8)


def log_of(folder: Path, pieces: list[bytes]) -> LogFile:
    """A log whose n-th piece was read n seconds after the epoch."""
    path = folder / "base.log"
    path.write_bytes(b"".join(pieces))
    offset, records = 0, b""
    for number, piece in enumerate(pieces):
        records += TIME_RECORD.pack(offset, number * SECOND)
        offset += len(piece)
    path.with_name("base.log.times").write_bytes(records)
    return LogFile(path)


def lines_of(text: bytes) -> list[bytes]:
    """The lines with their ends; only a line feed ends a line."""
    lines = [line + b"\n" for line in text.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return [line for line in lines if line]


@given(pieces=PIECES, wanted=st.integers(0, 6))
def test_last_lines(pieces: list[bytes], wanted: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(Path(folder), pieces)
        found = log.read(log.begin(wanted, None))
    lines = lines_of(b"".join(pieces))
    assert found == b"".join(lines[len(lines) - wanted :] if wanted < len(lines) else lines)


@given(pieces=PIECES, since=st.integers(0, 9))
def test_lines_begun_since(pieces: list[bytes], since: int) -> None:
    expected, offset = [], 0
    starts = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
    for line in lines_of(b"".join(pieces)):
        read_at = max(n for n, start in enumerate(starts) if start <= offset)
        if read_at >= since:
            expected.append(line)
        offset += len(line)
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(Path(folder), pieces)
        assert log.read(log.begin(None, since * SECOND)) == b"".join(expected)


@given(pieces=PIECES)
def test_times_of_lines_whatever_the_pieces_they_are_read_in(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(Path(folder), pieces)
        whole = Stamps(log, 0)(text)
        in_pieces = Stamps(log, 0)
        assert b"".join(in_pieces(text[n : n + 3]) for n in range(0, len(text), 3)) == whole
    stamped = lines_of(whole)
    assert [line.partition(b"Z ")[2] for line in stamped] == lines_of(text)
    assert stamped == sorted(stamped, key=lambda line: line[:30])


@pytest.mark.parametrize("wanted", [None, 0, 3])
def test_no_file_yet(tmp_path: Path, wanted: int | None) -> None:
    log = LogFile(tmp_path / "none.log")
    assert log.read(log.begin(wanted, None)) == b""
    assert log.read(log.begin(wanted, 5 * SECOND)) == b""


def test_tail_of_a_long_log(tmp_path: Path) -> None:
    lines = [f"line {n} {'x' * 97}\n".encode() for n in range(5000)]
    log = log_of(tmp_path, [b"".join(lines)])
    assert log.read(log.begin(2000, None)) == b"".join(lines[-2000:])
