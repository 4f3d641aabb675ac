"""One local cluster in this process: store, API server, node, TLS, kubeconfig."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import web

from kbroker.local.cluster.admin import Admin
from kbroker.local.cluster.api import Api
from kbroker.local.cluster.certificates import server_context
from kbroker.local.cluster.node import Node
from kbroker.local.cluster.resources import Resources
from kbroker.local.cluster.spawner import allow_many_files
from kbroker.local.cluster.store import Store
from kbroker.local.cluster.users import ADMIN, User

_BODY_MAX = 3 * 1024 * 1024  # what a real API server takes
_NAMESPACES = ("default", "kube-system")


@dataclass(frozen=True, slots=True)
class Options:
    """How a local cluster is made.

    Attributes:
        folder: kubeconfig, logs and the pods' working folders.
        port: to listen on, on 127.0.0.1; 0 for a free one.
        max_pods: pods that run at once.
        history: changes of each resource that are kept for watches.
        bookmark_interval: seconds between the bookmarks of a watch.
        crash_backoff: seconds before the second restart of a container; doubled for each more.
        keep_logs: of how many deleted pods the logs are kept.
        mounts: whether volumes are mounted where the machine allows it.
        create_before_policy: whether late creates are refused.
        play: for how many seconds pods are told to run, without any process; None really runs
            them.
    """

    folder: Path
    port: int = 0
    max_pods: int = 110
    history: int = 10_000
    bookmark_interval: float = 5.0
    crash_backoff: float = 1.0
    keep_logs: int = 2000
    mounts: bool = True
    create_before_policy: bool = True
    play: float | None = None


class Server:
    """The running cluster."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.url = ""
        self.kubeconfig = options.folder / "kubeconfig"
        self._token = ""

    async def start(self) -> None:
        """Serve; afterwards `url` and the kubeconfig file are there.

        Raises:
            OSError: the port is taken, or the folder cannot be written.
        """
        options = self._options
        allow_many_files()
        options.folder.mkdir(parents=True, exist_ok=True)
        options.folder.chmod(0o700)
        store = Store(options.history)
        resources = Resources(store)
        resources.install_policy(options.create_before_policy)
        for name in _NAMESPACES:
            resources.create("namespaces", "", {"metadata": {"name": name}})
        self._node = Node(
            store,
            options.folder / "pods",
            options.max_pods,
            options.crash_backoff,
            keep_logs=options.keep_logs,
            mount=options.mounts,
            play=options.play,
        )
        await self._node.start()
        api = Api(resources, self._node, options.bookmark_interval)
        self._token = api.users.add(User(store, ADMIN))
        application = web.Application(client_max_size=_BODY_MAX)
        application.router.add_route("*", "/_local/{rest:.*}", Admin(api).handle)
        application.router.add_route("*", "/{rest:.*}", api.handle)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=0.5
        )
        self._api = api
        await self._runner.setup()
        context, authority = server_context(options.folder)
        site = web.TCPSite(
            self._runner, "127.0.0.1", options.port, ssl_context=context, backlog=4096
        )
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{port}"
        self._write_kubeconfig(authority)

    async def lost(self) -> None:
        """Wait until containers cannot be run any more: the spawner is gone."""
        await self._node.processes.lost.wait()

    async def stop(self) -> None:
        """End every container and connection."""
        for watch in list(self._api.watches.open):
            watch.drop()
        await self._node.stop()
        await self._runner.cleanup()

    def _write_kubeconfig(self, authority: bytes) -> None:
        name = "kbroker-local"
        cluster = {
            "server": self.url,
            "certificate-authority-data": base64.b64encode(authority).decode(),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": self._token}}],
            "contexts": [
                {"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}
            ],
        }
        # JSON is YAML. Written beside and renamed: nobody ever reads half of it.
        fresh = self.kubeconfig.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
        fresh.replace(self.kubeconfig)
