"""What tasks say of themselves in the ledger, and the gates that they wait at."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PATIENCE = 240.0


@contextlib.contextmanager
def recorded(context: Any, what: str = "start") -> Iterator[None]:
    """Write a line when the task starts, and one when it ends, however it does."""
    write(what, context)
    try:
        yield
    finally:
        write("end", context)


def write(what: str, context: Any) -> None:
    """Append one line; appends this short are atomic."""
    ti = context["ti"]
    fields = (
        what,
        ti.dag_id,
        ti.run_id,
        ti.task_id,
        ti.map_index,
        ti.try_number,
        os.getpid(),
        os.environ["HOSTNAME"],
        os.environ.get("ENTRY_POINT", ""),
        os.environ.get("FORM", ""),
        time.time(),
    )
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write("\t".join(map(str, fields)) + "\n")


def wait_at_gate(name: str) -> None:
    """Wait until the test opens the gate."""
    deadline = time.monotonic() + _PATIENCE
    gate = Path(os.environ["GATES"], name)
    while not gate.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {name}")
        time.sleep(0.1)
