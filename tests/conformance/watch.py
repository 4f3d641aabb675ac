"""A watch that goes on beside the case."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from kbroker.kube_client import ApiError
from tests.conformance.cluster import Cluster, Object, poll


class Watch:
    """What a watch of kbroker's client has told so far.

    Args:
        cluster: where.
        namespace: of the pods.
        selector: label selector.
        version: events after this one are told.
        timeout: seconds until the server ends it.

    Attributes:
        told: the events, whole, bookmarks among them.
        opened: whether the server has accepted it.
        ended: whether the server has ended it.
        error: why it broke, or was refused.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, selector: str, version: int, timeout: float
    ) -> None:
        self.told: list[Object] = []
        self.opened = self.ended = False
        self.error: ApiError | None = None
        self._cluster = cluster
        self._task = cluster.loop.start(self._read(namespace, selector, version, timeout))
        poll("the watch is answered", lambda: self.opened or self.error)

    async def _read(self, *where: Any) -> None:
        try:
            async with self._cluster.kube.watch_pods(*where) as batches:
                self.opened = True
                async for lines in batches:
                    self.told += [orjson.loads(line) for line in lines if line.strip()]
            self.ended = True
        except ApiError as error:
            self.error = error

    @property
    def events(self) -> list[tuple[str, str]]:
        """Type and name of what happened to pods."""
        return [(e["type"], e["object"]["metadata"]["name"]) for e in self.of_pods]

    @property
    def state(self) -> dict[str, str]:
        """Name → resource version of the pods that exist, by what was told."""
        found: dict[str, str] = {}
        for event in self.of_pods:
            metadata = event["object"]["metadata"]
            if event["type"] == "DELETED":
                found.pop(metadata["name"], None)
            else:
                found[metadata["name"]] = metadata["resourceVersion"]
        return found

    @property
    def of_pods(self) -> list[Object]:
        """The events about pods, whole: a bookmark may come at any time."""
        return [event for event in self.told if event["type"] not in ("BOOKMARK", "ERROR")]

    def until(
        self, kind: str, condition: Callable[[Object], Any] = bool, seconds: float = 20.0
    ) -> Object:
        """The object of the first event of a type for which the condition holds."""

        def found() -> Object | None:
            told = (event["object"] for event in list(self.told) if event["type"] == kind)
            return next((content for content in told if condition(content)), None)

        deadline = time.monotonic() + seconds
        while (content := found()) is None:
            assert self.error is None, self.error
            assert not self.ended, f"the watch ended before {kind}: {self.events}"
            assert time.monotonic() < deadline, f"no {kind} within {seconds} s: {self.events}"
            time.sleep(0.02)
        return content

    def close(self) -> None:
        """End it."""
        self._cluster.loop.cancel(self._task)
