"""The watcher process: `python -m workers.watcher [--once]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from kbroker.errors import ConfigError, KbrokerError
from kbroker.kube_client import KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import connect_async
from kbroker.watch_leader import WatchLeader
from workers.memory import boot_is_over

_ACCESS = ("list", "watch", "get")


def main(argv: list[str] | None = None) -> int:
    """Watch until SIGTERM or SIGINT; the exit code is 2 for a usage error, 1 for a failure."""
    parser = argparse.ArgumentParser(
        prog="python -m workers.watcher",
        description="Tell executors what happens to their pods. One watcher per namespace leads, "
        "any further ones stand by. Configured by $KBROKER_CONFIG and KBROKER__SECTION__KEY.",
    )
    parser.add_argument(
        "--once", action="store_true", help="list and publish everything once, then exit"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        config = KubeConfig.load()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_signal(_serve(config, once=arguments.once)))
    except KbrokerError as error:
        sys.stderr.write(f"kbroker: error: {error}\n")
        return error.exit_code
    return 0


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(config: KubeConfig, *, once: bool) -> None:
    if not config.broker.url:
        raise ConfigError(
            "broker.url is not set: a watcher needs the Redis of its executors; "
            "set KBROKER__BROKER__URL=redis://host:6379"
        )
    client = connect_async(config.broker.url, config.broker.socket_timeout)
    kube = await KubeClient.connect(config.kubernetes)
    try:
        await _check(kube, config.kubernetes.namespace)
        leader = WatchLeader(config, kube, client, f"{socket.gethostname()}-{os.getpid()}")
        boot_is_over()
        await (leader.list_once() if once else leader.run())
    finally:
        await kube.close()
        await client.aclose()


async def _check(kube: KubeClient, namespace: str) -> None:
    await kube.check_namespace(namespace)
    for verb in _ACCESS:
        await kube.check_access(verb, "pods", namespace)


async def _until_signal(duty: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(duty)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


if __name__ == "__main__":
    sys.exit(main())
