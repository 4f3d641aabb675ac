"""One open watch: changes from the store to the connection, with bookmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.selectors import Matcher
from kbroker.local.cluster.store import Change, Store, Stored

_BACKLOG_MAX = 300_000  # pieces: three for each change

Render = Callable[[Stored], bytes]


class Watch:
    """What one client is shown of one resource.

    Args:
        store: whose changes.
        resource: such as "pods".
        namespace: "" for all.
        matches: a selector; None for everything.
        render: an object as the client asked for it.
    """

    def __init__(
        self, store: Store, resource: str, namespace: str, matches: Matcher | None, render: Render
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._matches = matches
        self._render = render
        self._pieces: list[bytes] = []
        self._shown_first = 0
        self._woken: asyncio.Future[None] | None = None  # while `serve` sleeps
        self._after = 0
        self.silenced = False
        self.muted_at: int | None = None
        self.dropped = False

    def begin(self, version: int) -> Callable[[], None]:
        """Replay what came after `version`, then follow; 0 shows what exists first.

        Returns:
            How to stop following.

        Raises:
            Failure: 410, the history does not reach back that far.
        """
        self._after = version
        if version == 0:
            for stored in self._store.all(self._resource, self._namespace):
                if self._shows(stored):
                    self._shown_first += 3
                    self._say_change("ADDED", stored)
            self._after = self._store.version
        else:
            for change in self._store.since(self._resource, version):
                self._take(change)
        return self._store.listen(self._resource, self._take)

    def _take(self, change: Change) -> None:
        if change.version <= self._after:
            return  # a client that is ahead of the server hears nothing
        metadata = change.now.object["metadata"]
        if self._namespace and metadata.get("namespace") != self._namespace:
            return
        shown = self._shows(change.now)
        was = change.before is not None and self._shows(change.before)
        if change.type == "DELETED" or not shown:
            kind = "DELETED" if was else ""
        else:
            kind = "MODIFIED" if was else "ADDED"
        if kind:
            self._say_change(kind, change.now)

    def _shows(self, stored: Stored) -> bool:
        return self._matches is None or self._matches(stored.object)

    def _say_change(self, kind: str, stored: Stored) -> None:
        if self.silenced or self.muted_at is not None:
            return
        # In pieces, so that all watches share the object's bytes.
        self._pieces += (
            b'{"type":"' + kind.encode() + b'","object":',
            self._render(stored),
            b"}\n",
        )
        if len(self._pieces) > _BACKLOG_MAX + self._shown_first:
            self.drop()  # as a real server does with a client that does not read
        self._wake()

    def _bookmark(self, kind: str) -> None:
        """Tell the client how far it is, unless it is ahead."""
        # A bookmark says that everything up to it was sent, and a server does not lie.
        version = self._store.version if self.muted_at is None else self.muted_at
        if version < self._after:
            return
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        content = {"kind": kind, "apiVersion": "v1", "metadata": metadata}
        self.say([orjson.dumps({"type": "BOOKMARK", "object": content}) + b"\n"])

    def say(self, lines: Iterable[bytes], *, last: bool = False) -> None:
        """Send something else, as misbehaviour on demand does; with `last`, then end."""
        if not self.silenced:
            self._pieces.extend(lines)
        self.dropped = self.dropped or last
        self._wake()

    def fail(self, failure: Failure) -> None:
        """Send an ERROR event and end."""
        line = orjson.dumps({"type": "ERROR", "object": failure.status()}) + b"\n"
        self.say([line], last=True)

    def silence(self) -> None:
        """Send nothing any more; the connection stays open."""
        self.silenced = True
        self._pieces.clear()

    def mute(self) -> None:
        """Send bookmarks only, and get no further."""
        self.muted_at = self._store.version

    def drop(self) -> None:
        """End the connection."""
        self.dropped = True
        self._wake()

    async def serve(
        self,
        response: web.StreamResponse,
        seconds: float,
        bookmarks: tuple[float, str] | None,
    ) -> None:
        """Send lines until the time is up, the client goes, or the watch is dropped.

        Args:
            response: prepared already.
            seconds: until the watch ends.
            bookmarks: interval in seconds and kind of object; None for none.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        mark_at = loop.time() + bookmarks[0] if bookmarks else end
        while True:
            await self._flush(response)
            now = loop.time()
            if self.dropped or now >= end:
                break
            if bookmarks and now >= mark_at:
                mark_at = now + bookmarks[0]
                self._bookmark(bookmarks[1])
                continue
            await self._sleep(min(end, mark_at))
        if bookmarks and not self.dropped:
            self._bookmark(bookmarks[1])
            await self._flush(response)

    async def _sleep(self, until: float) -> None:
        """Until there is something to do, or that moment; `asyncio.wait_for` takes a task."""
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        timer = loop.call_at(until, self._wake)
        try:
            await self._woken
        finally:
            timer.cancel()
            self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def _flush(self, response: web.StreamResponse) -> None:
        while self._pieces:
            pieces, self._pieces = self._pieces, []
            if len(pieces) > self._shown_first:
                self._shown_first = 0
            await response.write(b"".join(pieces))


class Watches:
    """Every open watch, for misbehaviour on demand."""

    def __init__(self) -> None:
        self.open: set[Watch] = set()

    def misbehave(self, action: str) -> int:
        """Do something to all open watches; how many there were.

        Raises:
            Failure: 400, there is no such action.
        """
        steps: dict[str, Callable[[Watch], Any]] = {
            "drop": Watch.drop,
            "silence": Watch.silence,
            "mute": Watch.mute,
            "garbage": lambda watch: watch.say([b"\x00 this is not JSON\n"]),
            "half_line": lambda watch: watch.say([b'{"type":"ADDED","obj'], last=True),
            "error410": lambda watch: watch.fail(Failure(410, "too old resource version")),
            "error500": lambda watch: watch.fail(Failure(500, "etcdserver: request timed out")),
        }
        if action not in steps:
            raise Failure(400, f"no such action: {action!r}; one of {', '.join(steps)}")
        for watch in list(self.open):
            steps[action](watch)
        return len(self.open)
