"""A proxy in front of Redis that lets chosen scripts run and loses their replies."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

from kbroker.redis_client import connect, script
from kbroker.soak.proxy import Connection, TcpProxy

# What else is asked of Redis, and what such a request contains.
OTHERS = {"delete_pod": b'"actor_name":"delete"'}


class Snipper(TcpProxy):
    """Cuts the connection when the answer to one of these scripts comes.

    Args:
        url: of the Redis server.
        scripts: name of a script, or of OTHERS → how many of its replies are to be lost.

    Attributes:
        lost: name of a script → how many of its replies were lost.
    """

    def __init__(self, url: str, **scripts: int) -> None:
        parts = urlsplit(url)
        super().__init__(parts.hostname or "", parts.port or 0)
        self.left = Counter(scripts)
        self.lost: Counter[str] = Counter()
        self._marks = {name: OTHERS.get(name) or script(name).sha.encode() for name in scripts}
        with connect(url, 5.0) as client:  # else the reply would be that it is not known
            for name in scripts.keys() - OTHERS:
                client.script_load(script(name).source)

    @property
    def url(self) -> str:
        """Of the Redis server, through this."""
        return f"redis://127.0.0.1:{self.port}/0"

    def chosen(self, request: bytes) -> str:
        """Name of the script in this request whose reply is to be lost; "" for none."""
        for name, mark in self._marks.items():
            if self.left[name] > 0 and mark in request:
                self.left[name] -= 1
                return name
        return ""

    async def _listen(self) -> None:
        loop = self._loop
        self._server = await loop.create_server(lambda: _Snipped(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]


class _Snipped(Connection):
    proxy: Snipper
    _chosen = ""

    def data_received(self, data: bytes) -> None:
        self._chosen = self._chosen or self.proxy.chosen(data)
        super().data_received(data)

    def answered(self, data: bytes) -> None:
        if self._chosen:
            self.proxy.lost[self._chosen] += 1
            self.abort()
        else:
            super().answered(data)
