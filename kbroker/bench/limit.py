"""The contender: two minimal clients, as there are two launcher processes, on the same cluster."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from kbroker.bench.config import config_of
from kbroker.bench.helper import BenchError, Helper
from kbroker.bench.site import Site

_SOON = 0.2
_CLIENTS = 2
DEPLOYMENTS = tuple(f"bench-limit-{number}" for number in range(_CLIENTS))


class Limit:
    """Minimal clients; `with` starts and ends them.

    Args:
        site: the cluster.
        folder: logs.
        run: whether their pods are run, or only created.
        deployment: of all their pods; by default each has its own.
        settings: further ones, by section.key.
    """

    def __init__(
        self,
        site: Site,
        folder: Path,
        *,
        run: bool = False,
        deployment: str = "",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self._clients = []
        for number in range(_CLIENTS):
            # A deployment each, unless told: each watches its own pods only.
            mine = deployment or DEPLOYMENTS[number]
            config = config_of(site, folder, mine, run=run, **(settings or {}))
            name = f"limit-{number + 1}"
            self._clients.append(Helper(name, "kbroker.bench.limit_client", config, folder))

    def __enter__(self) -> Limit:
        with contextlib.ExitStack() as started:
            started.callback(self._stop)
            for client in self._clients:
                client.start()
            started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for client in self._clients:
            client.stop()

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [client.pid for client in self._clients]

    def prepare(self, group: str, count: int) -> int:
        """Make the bodies of so many pods; the size of one."""
        share, rest = divmod(count, len(self._clients))
        first = 0
        for number, client in enumerate(self._clients):
            end = first + share + (number < rest)
            client.send("prepare", group=group, first=first, end=end)
            first = end
        return sum(int(client.receive()["bytes"]) for client in self._clients) // count

    def carry_out(self, does: str, count: int) -> list[tuple[float, int]]:
        """Have them `create` what was prepared, or `live` it, all from the same moment on.

        Returns:
            (monotonic seconds, how many are done), from that moment on.

        Raises:
            BenchError: not all were done.
        """
        at = time.monotonic() + _SOON
        for client in self._clients:
            client.send(does, at=at)
        done = sorted(moment for client in self._clients for moment in client.receive()["done"])
        if len(done) != count:
            raise BenchError(f"the limit's clients did {len(done)} of {count}")
        return [(at, 0), *((moment, number + 1) for number, moment in enumerate(done))]

    def sweep(self) -> None:
        """Remove all their pods."""
        for client in self._clients:
            client.send("sweep")
        for client in self._clients:
            client.receive()
