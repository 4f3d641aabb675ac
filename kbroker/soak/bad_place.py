"""Run a launcher in a bad place: `python -m kbroker.soak.bad_place CLOCK NAMELESS MODULE ARGS…`.

Its clock is off by CLOCK seconds; the name of the API server does not resolve while the file
NAMELESS exists; and a pod whose name begins with that of a poison task kills whoever creates it.
"""

from __future__ import annotations

import logging
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kbroker.kube_client import KubeClient
from kbroker.soak.workload import POISON

# The API server's name in the kubeconfig of a soak's launchers.
HOST = "localhost"


def main() -> None:
    """Run the module as if it were the main one."""
    offset, nameless, module = float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if offset:
        _set_clock(offset)
    # When a promise is broken, what became of each pod tells why.
    logging.getLogger("kbroker").setLevel(logging.DEBUG)
    _lose_names(nameless)
    _die_of_poison()
    sys.argv = sys.argv[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _set_clock(offset: float) -> None:
    right = time.time
    time.time = lambda: right() + offset


def _lose_names(nameless: Path) -> None:
    resolve: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == HOST and nameless.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def _die_of_poison() -> None:
    create = KubeClient.create_pod

    async def create_pod(
        self: KubeClient, namespace: str, manifest: Any, timeout: float | None = None
    ) -> bytes:
        pod = orjson.loads(manifest) if isinstance(manifest, bytes) else manifest
        if pod["metadata"]["name"].startswith(f"soak-{POISON}-"):
            os.kill(os.getpid(), signal.SIGKILL)
        return await create(self, namespace, manifest, timeout)

    KubeClient.create_pod = create_pod  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
