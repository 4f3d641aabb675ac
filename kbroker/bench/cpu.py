"""What processes cost, from /proc: see proc_pid_stat(5) and proc_pid_status(5)."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def cpu_seconds(*groups: int) -> float:
    """User and system time of all processes of these process groups, the ended ones included.

    Ended children count once their parent has waited for them.
    """
    ticks = 0
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # After the name in brackets: field 3 and those that follow.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) in groups:
                ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICK


def members(group: int) -> list[int]:
    """The process ids of a process group."""
    found = []
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                found.append(int(entry.name))
    return sorted(found)


def resident_bytes(pid: int) -> int:
    """Resident memory of one process.

    Raises:
        OSError: there is no such process.
    """
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE


def peak_bytes(pid: int) -> int:
    """The most resident memory that one process ever had.

    Raises:
        OSError: there is no such process.
    """
    found = _PEAK.search((_PROC / str(pid) / "status").read_text())
    return 0 if found is None else int(found[1]) * 1024
