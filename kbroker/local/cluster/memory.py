"""Memory limits: what exceeds its limit is killed, as by a kernel for a control group.

Each container's processes are looked at every 0.2 s, in its first second more often. Resident
memory is the cheap, upper bound; only where that is too much, what each process does not share
and cannot give back (anonymous memory and shared memory, by its proportional share) is added up,
because that is what a control group kills for. There is no limit on address space (RLIMIT_AS):
runtimes reserve far more than they use, and would fail where a real cluster lets them run.
What grows beyond its limit and ends within one interval goes unseen.

Reads /proc: elsewhere than on Linux limits have no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.2
_YOUNG_INTERVAL = 0.04
_YOUNG = 1.0
_PROC = Path("/proc")
_PAGE = 4096
_UNSHARED = ("Pss_Anon:", "Pss_Shmem:")


@dataclass(frozen=True, slots=True)
class Reading:
    """One process, as /proc shows it.

    Attributes:
        parent: its parent's process id.
        session: its session's id.
        resident: its resident memory in bytes.
    """

    parent: int
    session: int
    resident: int


@dataclass(frozen=True, slots=True)
class _Watched:
    limit: int
    exceeded: Callable[[], None]
    since: float


def members(readings: Mapping[int, Reading], roots: Iterable[int]) -> dict[int, list[int]]:
    """Which processes belong to which container.

    A process belongs to a container when it is in the session of the container's first process,
    or descends from one that does.

    Args:
        readings: of all processes, by process id.
        roots: the containers' first processes.
    """
    found: dict[int, list[int]] = {root: [] for root in roots}
    for pid in readings:
        step, seen = pid, set[int]()
        while step in readings and step not in seen:
            seen.add(step)
            root = step if step in found else readings[step].session
            if root in found:
                found[root].append(pid)
                break
            step = readings[step].parent
    return found


class MemoryWatch:
    """Watches the containers that have a limit, and nothing while there is none."""

    def __init__(self) -> None:
        self._watched: dict[int, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, pid: int, limit: int, exceeded: Callable[[], None]) -> None:
        """Watch a container.

        Args:
            pid: its first process, which leads its session.
            limit: in bytes.
            exceeded: called once, when it uses more.
        """
        self._watched[pid] = _Watched(limit, exceeded, time.monotonic())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())

    def remove(self, pid: int) -> None:
        """It has ended."""
        self._watched.pop(pid, None)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while self._watched:
            youngest = max(watched.since for watched in self._watched.values())
            young = time.monotonic() - youngest < _YOUNG
            await asyncio.sleep(_YOUNG_INTERVAL if young else _INTERVAL)
            limits = {pid: watched.limit for pid, watched in self._watched.items()}
            for pid in await asyncio.to_thread(_exceeding, limits):
                watched = self._watched.pop(pid, None)
                if watched is not None:
                    watched.exceeded()


def _exceeding(limits: dict[int, int]) -> list[int]:
    readings = _readings()
    found = []
    for root, pids in members(readings, limits).items():
        if sum(readings[pid].resident for pid in pids) > limits[root] and (
            sum(map(_unshared, pids)) > limits[root]
        ):
            found.append(root)
    return found


def _readings() -> dict[int, Reading]:
    readings = {}
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # After the name in brackets (proc_pid_stat(5)): field 3 and those that follow.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                readings[int(folder.name)] = Reading(
                    int(fields[1]), int(fields[3]), int(fields[21]) * _PAGE
                )
    return readings


def _unshared(pid: int) -> int:
    """What a process uses, in bytes, by its share; pages of files are not counted."""
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(_UNSHARED))
