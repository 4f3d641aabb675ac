"""Where the bench runs: a local cluster of each run's own, or any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kbroker.bench.helper import BenchError
from kbroker.errors import UsageError
from kbroker.local.cluster_process import LocalCluster
from kbroker.soak.place import Context

_NO_LIMIT = 1_000_000
_SLOW = "bench"


class Site(Protocol):
    """A cluster.

    Attributes:
        kubeconfig: what leads to it.
        namespace: where the pods are.
        server: process id of its API server, where that is known.
        disposable: whether it goes with what is left in it.
        plays: whether it plays the lives of the pods for its default scheduler; if not, the
            bench does that over the API.
    """

    kubeconfig: Path
    namespace: str
    disposable: bool
    plays: bool

    @property
    def server(self) -> int | None:
        """Process id of its API server, where that is known."""

    def slow_down(self, milliseconds: float) -> None:
        """Have each create answered so much later; raises UsageError where that cannot be had."""


class LocalSite:
    """A local cluster; `with` starts and ends it.

    Args:
        folder: its state.
        play: for how many seconds pods for the default scheduler are played.
    """

    namespace = "default"
    disposable = plays = True

    def __init__(self, folder: Path, play: float) -> None:
        self._cluster = LocalCluster(folder, play=play, max_pods=_NO_LIMIT)
        self.kubeconfig = self._cluster.kubeconfig

    @property
    def server(self) -> int | None:
        """Process id of its API server."""
        return self._cluster.pid

    def slow_down(self, milliseconds: float) -> None:
        """Have each create answered so much later; 0 for at once."""
        self._cluster.admin.request("DELETE", "/_local/faults", {"name": _SLOW})
        if milliseconds:
            match = {"verb": "create", "resource": "pods"}
            rule = {"name": _SLOW, "match": match, "action": {"latency_ms": milliseconds}}
            self._cluster.admin.post("/_local/faults", rule)

    def __enter__(self) -> LocalSite:
        self._cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()


class GivenSite:
    """Whatever a kubeconfig's present context leads to.

    Args:
        kubeconfig: its path.
        server: process id of its API server, where that is known.

    Raises:
        ClusterError: it cannot be read.
    """

    disposable = plays = False

    def __init__(self, kubeconfig: Path, server: int | None) -> None:
        self.kubeconfig = kubeconfig.resolve()
        self.namespace = Context.read(self.kubeconfig).namespace
        self.server = server

    def slow_down(self, milliseconds: float) -> None:
        """It is as fast as it is."""
        if milliseconds:
            raise UsageError("only the local cluster is slow on demand; leave out --kubeconfig")


class Sites:
    """Gives each run its cluster.

    Args:
        folder: for the state of local ones.
        kubeconfig: of a given one; None for local ones.
        server: process id of the given one's API server, where that is known.

    Attributes:
        local: whether they are local ones.
    """

    def __init__(self, folder: Path, kubeconfig: Path | None, server: int | None = None) -> None:
        self._folder = folder
        self._kubeconfig = kubeconfig
        self._server = server
        self.local = kubeconfig is None

    @contextlib.contextmanager
    def site(self, name: str, play: float = 1.0) -> Iterator[Site]:
        """A cluster for the run of this name.

        Raises:
            ClusterError: there is none, or it cannot be used.
        """
        if self._kubeconfig is not None:
            yield GivenSite(self._kubeconfig, self._server)
            return
        with LocalSite(self._folder / name / "cluster", play) as site:
            yield site


def server_pid(site: Site) -> int:
    """Process id of the API server.

    Raises:
        BenchError: it is not known.
    """
    if site.server is None:
        raise BenchError("the API server's process is not known; see --server-pid")
    return site.server
