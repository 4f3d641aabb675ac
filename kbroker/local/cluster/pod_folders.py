"""The pods' folders: logs and working folders; those of pods long gone are removed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import deque
from pathlib import Path

from kbroker.local.cluster.store import Object


class PodFolders:
    """One folder for each pod: namespace/name/uid.

    Args:
        root: where they are.
        keep: of how many deleted pods the folders, and with them the logs, stay.
    """

    def __init__(self, root: Path, keep: int) -> None:
        self.root = root
        self._keep = keep
        self._gone: deque[Path] = deque()
        self._removing: asyncio.Task[None] | None = None

    def of(self, pod: Object) -> Path:
        """A pod's folder."""
        metadata = pod["metadata"]
        return self.root.joinpath(metadata["namespace"], metadata["name"], metadata["uid"])

    def log_file(self, pod: Object, container: str) -> Path:
        """Where a container's output is."""
        return self.of(pod) / f"{container}.log"

    def open(self) -> None:
        """Make the root; what stands there is of pods of an earlier cluster."""
        self.root.mkdir(parents=True, exist_ok=True)
        found = [folder for folder in self.root.glob("*/*/*") if folder.is_dir()]
        for folder in sorted(found, key=lambda folder: folder.stat().st_mtime):
            self._add(folder)

    def gone(self, pod: Object) -> None:
        """A pod is deleted and nothing of it runs."""
        self._add(self.of(pod))

    def _add(self, folder: Path) -> None:
        self._gone.append(folder)
        too_many = len(self._gone) > self._keep
        if too_many and (self._removing is None or self._removing.done()):
            self._removing = asyncio.get_running_loop().create_task(self._remove())

    async def _remove(self) -> None:
        while len(self._gone) > self._keep:
            count = len(self._gone) - self._keep
            stale = [self._gone.popleft() for _ in range(count)]
            await asyncio.to_thread(_remove_all, stale)

    async def close(self) -> None:
        """Finish what is being removed."""
        if self._removing is not None:
            await self._removing


def make_folder(folder: Path) -> None:
    """Make a pod's folder, even while the last of an earlier pod of its name is removed."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _remove_all(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another pod of this name or namespace has one
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
