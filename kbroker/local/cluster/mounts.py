"""A process with directories mounted where it wants them (Linux).

The process gets a mount namespace of its own; nothing changes for any other process, and the
mounts are gone with its last one. Root does that as it is; anybody else within a user namespace
that maps the user to itself. Which of the two works, if any, is found out once.

A mount point that the machine does not have is never made there. The nearest directory above it
is replaced, for this process only, by a small file system in memory that holds the same entries,
each bound to the real one, and the mount point beside them. So whatever exists stays real and
shared; only a *new* name directly in that one directory is the process's own.

Runs in the spawner and in what it forks: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

PLAIN = "plain"
USER = "user"

# linux/sched.h, linux/mount.h
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_RDONLY, _REMOUNT, _BIND, _MOVE, _REC = 1, 32, 4096, 8192, 16384
_UNBINDABLE, _PRIVATE = 1 << 17, 1 << 18
_DETACH = 2
# Flags that a user namespace may not clear: (of statvfs, of mount).
_KEPT = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))


class Mount(NamedTuple):
    """One directory or file to mount.

    Attributes:
        source: what.
        target: where, absolute.
        read_only: whether writing to it is refused.
    """

    source: str
    target: str
    read_only: bool


def way_to_mount(scratch: str) -> str:
    """PLAIN or USER, whichever works on this machine; "" when neither does.

    Args:
        scratch: an existing directory.
    """
    if not sys.platform.startswith("linux"):
        return ""
    for way in (PLAIN, USER):
        pid = os.fork()
        if pid == 0:
            _try(way, scratch)
        if os.waitpid(pid, 0)[1] == 0:
            return way
    return ""


def _try(way: str, scratch: str) -> NoReturn:
    with contextlib.suppress(BaseException):
        _enter(way)
        _mount("tmpfs", scratch, 0, "tmpfs")
        _mount("/", scratch, _BIND | _REC)
        os._exit(0)
    os._exit(1)


def start(
    argv: list[str],
    env: dict[str, str],
    folders: Iterable[str],
    output: int,
    way: str,
    mounts: list[Mount],
    scratch: str,
) -> int:
    """Start a process in a session of its own, with mounts; its process id.

    Args:
        argv: program, looked up in the PATH of `env`, and arguments.
        env: all of its environment.
        folders: it runs in the first of these that is there, with the mounts made.
        output: file descriptor for what it writes.
        way: PLAIN or USER.
        mounts: what it gets.
        scratch: an existing directory, under none of the targets if possible.

    Raises:
        OSError: it cannot be started; says why.
    """
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _become(argv, env, folders, output, way, mounts, scratch)
        except BaseException as error:
            # Whatever goes wrong in the child, the parent tells and nothing else runs on here.
            reason = error.strerror if isinstance(error, OSError) else None
            os.write(say, (reason or str(error) or type(error).__name__).encode()[:4096])
        finally:
            os._exit(127)
    os.close(say)
    with open(said, "rb") as problem:
        reason = problem.read().decode(errors="replace")
    if reason:
        os.waitpid(pid, 0)
        raise OSError(0, reason)
    return pid


def _become(
    argv: list[str],
    env: dict[str, str],
    folders: Iterable[str],
    output: int,
    way: str,
    mounts: list[Mount],
    scratch: str,
) -> NoReturn:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _enter(way)
    _make(mounts, scratch)
    for folder in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.chdir(folder)
            break
    os.execvpe(argv[0], argv, env)  # noqa: S606 - a pod says what to run


def _enter(way: str) -> None:
    """A mount namespace of our own, of which nothing propagates."""
    user, group = os.geteuid(), os.getegid()
    _checked(_libc().unshare(_NEWNS | (_NEWUSER if way == USER else 0)), "unshare")
    if way == USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount("none", "/", _REC | _PRIVATE)


def _make(mounts: list[Mount], scratch: str) -> None:
    # The real paths of the targets as the machine has them: /var/run may be a link to /run.
    wanted = [mount._replace(target=os.path.realpath(mount.target)) for mount in mounts]
    wanted.sort(key=lambda mount: mount.target.count("/"))
    for folder in _incomplete([mount.target for mount in wanted]):
        _skeleton(folder, scratch)
    # Opened before the first mount, which may cover them: a volume at /tmp, say.
    sources = [os.open(mount.source, os.O_PATH) for mount in wanted]
    for mount, source in zip(wanted, sources, strict=True):
        _mount_point(mount.target, stat.S_ISDIR(os.fstat(source).st_mode))
        _mount(f"/proc/self/fd/{source}", mount.target, _BIND | _REC)
        if mount.read_only:
            has = os.statvfs(mount.target).f_flag
            kept = sum(flag for given, flag in _KEPT if has & given)
            _mount("none", mount.target, _REMOUNT | _BIND | _RDONLY | kept)


def _incomplete(targets: list[str]) -> list[str]:
    """The directories in which the machine lacks the way to a target, outermost first."""
    found = set()
    for target in targets:
        if any(target.startswith(other + "/") for other in targets):
            continue  # its way is made in the volume that covers it
        folder = target
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if folder != target:
            found.add(folder)
    return sorted(found, key=lambda folder: (folder != "/", folder.count("/")))


def _skeleton(folder: str, scratch: str) -> None:
    """Put a file system in memory, with the same entries, in the place of a directory."""
    _mount("tmpfs", scratch, 0, "tmpfs", "mode=755,size=16m")
    # It is not bound into itself when an entry holds it.
    _mount("none", scratch, _UNBINDABLE)
    with os.scandir(folder) as entries:
        for entry in entries:
            copy = f"{scratch}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
                continue
            if entry.is_dir():
                os.mkdir(copy)
            else:
                os.close(os.open(copy, os.O_CREAT | os.O_WRONLY, 0o600))
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                _mount(entry.path, copy, _BIND | _REC)
    os.chmod(scratch, os.stat(folder).st_mode & 0o7777)
    if folder != "/":
        _mount(scratch, folder, _MOVE)
        return
    # The old root ends up on top of the new one: "." is the way to it (pivot_root(2)).
    os.chdir(scratch)
    _checked(_libc().pivot_root(b".", b"."), "pivot_root")
    _checked(_libc().umount2(b".", _DETACH), "umount")
    os.chdir("/")


def _mount_point(target: str, folder: bool) -> None:
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if folder:
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))


def _mount(source: str, target: str, flags: int, kind: str = "", options: str = "") -> None:
    done = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(done, f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


_LIBC: list[ctypes.CDLL] = []


def _libc() -> ctypes.CDLL:
    if not _LIBC:
        _LIBC.append(ctypes.CDLL(None, use_errno=True))
    return _LIBC[0]
