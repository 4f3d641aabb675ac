"""A pod's volumes as folders on this machine, and what of them a container sees where.

emptyDir, configMap, secret, downwardAPI, projected and hostPath. They are made once, before the
first container starts: a config map that changes later does not change them.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from kbroker.local.cluster.environment import NotStarted, expanded
from kbroker.local.cluster.mounts import Mount
from kbroker.local.cluster.store import Object
from kbroker.local.cluster.volume_files import NotMounted, Sources

_FOLDER = ".volumes"  # no container is named so
_SCRATCH = ".scratch"


class Volumes:
    """The volumes of one pod.

    Args:
        spec: the pod's specification.
        folder: the pod's folder.
    """

    def __init__(self, spec: Object, folder: Path) -> None:
        every = [*(spec.get("initContainers") or []), *spec["containers"]]
        wanted = {m["name"] for container in every for m in container.get("volumeMounts") or []}
        self._wanted = [v for v in spec.get("volumes") or [] if v["name"] in wanted]
        self._names = {volume["name"] for volume in self._wanted}
        self._folder = folder / _FOLDER
        self._hosts: dict[str, Path] = {}
        self._read_only: set[str] = set()
        self.scratch = folder / _SCRATCH

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def make(self, sources: Sources) -> tuple[str, str]:
        """Make them all, from the start.

        Returns:
            The volume that cannot be made and why, in a kubelet's words; ("", "") when all are.
        """
        self.remove()
        self.scratch.mkdir(parents=True, exist_ok=True)
        for volume in self._wanted:
            try:
                self._make(volume, sources)
            except NotMounted as problem:
                return volume["name"], str(problem)
            except OSError as problem:
                return volume["name"], f"{problem.filename}: {problem.strerror}"
        return "", ""

    def remove(self) -> None:
        """Remove what was made; a hostPath stays."""
        for folder in (self._folder, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)

    def mounts(self, container: Object, env: dict[str, str], home: Path) -> list[Mount]:
        """What a container sees where.

        Args:
            container: its part of the pod's specification.
            env: its environment, for `subPathExpr`.
            home: its own folder, which stays in view even where a volume covers it.

        Raises:
            NotStarted: a volume or a part of it is not there.
        """
        mounts = [self._mount(wanted, env) for wanted in container.get("volumeMounts") or []]
        if any(self._covers(mount, home) for mount in mounts):
            mounts.append(Mount(str(home), str(home), False))
        return mounts

    def _covers(self, mount: Mount, home: Path) -> bool:
        """Whether a mount hides a folder that can be mounted again within it."""
        ours = not mount.read_only and Path(mount.source).is_relative_to(self._folder)
        return ours and home.is_relative_to(os.path.realpath(mount.target))

    def _mount(self, wanted: Object, env: dict[str, str]) -> Mount:
        name = wanted["name"]
        if name not in self._names:
            raise NotStarted("CreateContainerError", f'volume "{name}" is not in the pod')
        source = self._hosts.get(name) or self._folder / name
        part = wanted.get("subPath") or expanded(wanted.get("subPathExpr") or "", env)
        if part:
            if part.startswith("/") or ".." in part.split("/"):
                raise NotStarted(
                    "CreateContainerConfigError", f'subPath "{part}" leads out of the volume'
                )
            source = source / part
            if not source.exists():
                source.mkdir(parents=True)
        read_only = bool(wanted.get("readOnly")) or name in self._read_only
        target = wanted["mountPath"].rstrip("/")
        return Mount(str(source), target if target.startswith("/") else f"/{target}", read_only)

    def _make(self, volume: Object, sources: Sources) -> None:
        name = volume["name"]
        if volume.get("hostPath") is not None:
            self._hosts[name] = _host_path(volume["hostPath"])
            return
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        files = sources.files(volume)
        if files is None:
            kinds = set(volume) - {"name"}
            if kinds - {"emptyDir"}:
                kind = min(kinds)
                raise NotMounted(f"{kind} volumes are not supported by the local cluster")
            folder.chmod(0o777)
            return
        self._read_only.add(name)
        for path, file in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.content)
            place.chmod(file.mode & 0o7777)


def _host_path(source: Object) -> Path:
    """Raises NotMounted: what is there is not what the volume's type says.

    https://kubernetes.io/docs/concepts/storage/volumes/#hostpath-volume-types
    """
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind in ("", "DirectoryOrCreate") and not path.exists():
        path.mkdir(parents=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch()
    if kind.startswith("Directory") and not path.is_dir():
        raise NotMounted(f"hostPath type check failed: {path} is not a directory")
    if kind.startswith("File") and not path.is_file():
        raise NotMounted(f"hostPath type check failed: {path} is not a file")
    return path


def rewritten(text: str, mounts: list[Mount]) -> str:
    """A text with the volumes' own paths in the place of their mount paths.

    This is how a container finds its volumes where nothing can be mounted.
    """
    if not mounts:
        return text
    places = {mount.target: mount.source for mount in mounts}
    found = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({found})(?![\w.-])", lambda path: places[path[1]], text)
