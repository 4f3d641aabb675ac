"""Run a local cluster in the foreground: `python -m kbroker.local.cluster --dir DIR`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from kbroker.local.cluster.server import Options, Server

_WARNING = (
    "containers are processes of this user on this machine: nothing is isolated, "
    "use it for development only"
)
_PARENT_CHECK = 0.5


def main() -> int:
    """Serve until SIGINT or SIGTERM; exit code 0, or 1 when it cannot start or go on."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    options, parent = _options()
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    try:
        run(_serve(options, parent))
    except OSError as error:
        print(f"kbroker: error: the local cluster stops: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _options() -> tuple[Options, int | None]:
    parser = argparse.ArgumentParser(
        prog="python -m kbroker.local.cluster",
        description="A Kubernetes API server for development; " + _WARNING,
    )
    parser.add_argument("--dir", type=Path, required=True, help="kubeconfig, logs, work folders")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 for a free one")
    parser.add_argument("--max-pods", type=int, default=110, help="pods that run at once")
    parser.add_argument("--history", type=int, default=10_000, help="changes of each resource kept")
    parser.add_argument("--bookmark-interval", type=float, default=5.0, help="seconds")
    parser.add_argument(
        "--crash-backoff", type=float, default=1.0, help="seconds before the second restart"
    )
    parser.add_argument(
        "--keep-logs", type=int, default=2000, help="of how many deleted pods logs are kept"
    )
    parser.add_argument(
        "--no-mounts", action="store_true", help="rewrite mount paths instead of mounting volumes"
    )
    parser.add_argument(
        "--no-create-before-policy", action="store_true", help="do not refuse late creates"
    )
    parser.add_argument(
        "--play",
        type=float,
        metavar="SECONDS",
        help="run no process: only say that each pod runs for so long, and succeeds",
    )
    parser.add_argument(
        "--exit-with-parent",
        type=int,
        nargs="?",
        const=os.getppid(),
        metavar="PID",
        help="end when the parent process is gone",
    )
    given = parser.parse_args()
    options = Options(
        folder=given.dir.resolve(),
        port=given.port,
        max_pods=given.max_pods,
        history=given.history,
        bookmark_interval=given.bookmark_interval,
        crash_backoff=given.crash_backoff,
        keep_logs=given.keep_logs,
        mounts=not given.no_mounts,
        create_before_policy=not given.no_create_before_policy,
        play=given.play,
    )
    return options, given.exit_with_parent


async def _serve(options: Options, parent: int | None) -> None:
    """Serve until a signal, or until the parent is gone.

    Raises:
        OSError: it cannot start, or cannot go on.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = Server(options)
    await server.start()
    lost = loop.create_task(server.lost())
    lost.add_done_callback(lambda _: stop.set())
    print(f"local cluster ready: {server.url} kubeconfig={server.kubeconfig}", flush=True)  # noqa: T201
    print(_WARNING, flush=True)  # noqa: T201
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PARENT_CHECK if parent else None)
        if parent and os.getppid() != parent:
            break
    broken = lost.done()
    lost.cancel()
    await server.stop()
    if broken:
        raise OSError("the process that starts containers is gone")


if __name__ == "__main__":
    sys.exit(main())
