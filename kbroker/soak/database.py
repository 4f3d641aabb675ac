"""What a soak's scheduler was asked for, and what came of it: two files that survive it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from kbroker.soak.workload import Op, Request


@dataclass(frozen=True, slots=True)
class Ending:
    """A final state, as a scheduler was told it.

    Attributes:
        life: of the scheduler, from 1.
        launch: launch id.
        state: "success" or "failed".
        cause: why it failed; "" for success.
        exit_code: of the base container.
        attempts: pods it took.
        uid: of the last pod; "" without one.
        message: the cause in words.
    """

    life: int
    launch: str
    state: str
    cause: str
    exit_code: int | None
    attempts: int
    uid: str
    message: str


class Database:
    """A scheduler's files in a folder of its own; append-only, so that a kill loses no line.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.status_path = folder / "status.json"
        self._requests = folder / "requests.jsonl"
        self._endings = folder / "endings.jsonl"
        self._lives = folder / "lives"
        for path in (self._requests, self._endings, self._lives):
            path.touch()
        self._read = 0

    def ask(self, request: Request) -> None:
        """Append a request."""
        _append(self._requests, asdict(request))

    def asked(self) -> list[Request]:
        """The requests that this object has not given out yet."""
        with self._requests.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        rows = (orjson.loads(line) for line in whole.splitlines())
        return [Request(**{**row, "op": Op(row["op"])}) for row in rows]

    @property
    def size(self) -> int:
        """Bytes of all requests."""
        return self._requests.stat().st_size

    @property
    def seen(self) -> int:
        """Bytes of the requests that this object has given out."""
        return self._read

    def ended(self, ending: Ending) -> None:
        """Append a final state."""
        _append(self._endings, asdict(ending))

    def endings(self) -> list[Ending]:
        """Every final state so far."""
        return [Ending(**row) for row in _rows(self._endings)]

    def begin_life(self) -> int:
        """Count a start of the scheduler; the number of this life, from 1."""
        _append(self._lives, {})
        return len(self._lives.read_bytes().splitlines())

    def tell(self, status: Mapping[str, Any]) -> None:
        """Replace the status."""
        fresh = self.status_path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(status))
        fresh.replace(self.status_path)

    def status(self) -> dict[str, Any]:
        """The last status; empty before the first."""
        try:
            fields: dict[str, Any] = orjson.loads(self.status_path.read_bytes())
        except FileNotFoundError:
            return {}
        return fields


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(orjson.dumps(row) + b"\n")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_bytes()
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        yield orjson.loads(line)
