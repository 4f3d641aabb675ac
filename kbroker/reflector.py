"""List and watch, in the sense of client-go's reflector: a consumer sees every pod's state.

What the consumer is told, in order and one call at a time:

- `relisting(new_generation)`, then `page(pods)` for each page as it arrives, then
  `listed(version)`: everything that exists, as of one resource version. What is in
  none of the pages does not exist any more. If a list breaks off, the next call is
  `relisting` again and the pages so far count for nothing.
- `events([(type, pod), ...])`: ADDED, MODIFIED and DELETED in the server's order,
  all that one read gave.
- `bookmark(version)`: everything up to this version has been told.

Each state is told at least once: after a broken connection the watch resumes from
the last version told, after which nothing is repeated unless a call did not return.
A state in between may be skipped by a list. What the consumer raises ends the run,
except for an ApiError: then its call did not succeed, and is made again.
`new_generation` says that the server's resource version fell (a restored backup,
another cluster), so that versions from before say nothing.

Every (re)connect first asks for the present resource version, because a watch from
a version above the server's answers 200 and then nothing, for ever
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from kbroker.errors import ClusterError
from kbroker.kube_client import ApiError, KubeClient
from kbroker.pod import Pod, PodLine, PodPage, WatchLine
from kbroker.retry import ApiFailure
from kbroker.settings import WatcherSettings

log = logging.getLogger(__name__)

GONE = 410
_UNAUTHORIZED = 401
# A watch that ended after this part of its time was ended by the server's clock.
_ON_TIME = 0.9


class Consumer(Protocol):
    """Is told what exists and what happens; the contract stands at the top of the module."""

    async def relisting(self, new_generation: bool) -> None:
        """A list begins."""

    async def page(self, pods: Sequence[Pod]) -> None:
        """Some of what exists."""

    async def listed(self, version: int) -> None:
        """The pages since `relisting` were everything that existed at this version."""

    async def events(self, events: Sequence[tuple[str, Pod]]) -> None:
        """What happened, in order."""

    async def bookmark(self, version: int) -> None:
        """Everything up to this version has been told."""

    def process_error(self, event: Mapping[str, Any]) -> str:
        """Judge an ERROR event: "0" asks for a list.

        Raises:
            ApiError: the watch resumes where it was.
        """


class _BrokenWatchError(Exception):
    """A connection ended in another way than by its timeout."""


class _SilentWatchError(_BrokenWatchError):
    """Nothing came for too long."""


class _ExpiredWatchError(Exception):
    """The server has forgotten the version to resume from."""


class Reflector:
    """Tells a consumer about the pods that a label selector matches in one namespace.

    Args:
        kube: the API server.
        namespace: where.
        selector: label selector.
        consumer: is told.
        settings: timeouts and back-off.
        floor: highest resource version that the consumer has heard of, ever.
        monotonic: seconds that never jump.
        sleep: waits for seconds.
        rng: for jitter.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        selector: str,
        consumer: Consumer,
        settings: WatcherSettings,
        *,
        floor: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._selector = selector
        self._consumer = consumer
        self._settings = settings
        self._floor = floor
        self._monotonic = monotonic
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._version: int | None = None
        self._listed_at = self._proven_at = monotonic()
        self._failures = 0
        self._silences = 0

    async def run(self, version: int | None) -> None:
        """Reflect until cancelled, or until the consumer raises.

        Args:
            version: everything up to it is known to the consumer; None to list first.
        """
        while True:
            version = await self.cycle(version)

    async def cycle(self, version: int | None) -> int | None:
        """List if necessary, then watch until the connection ends, then back off if it broke.

        Returns:
            The version to go on from; None to list first.
        """
        self._version = version
        self._floor = max(self._floor, version or 0)
        try:
            await self._connect()
            await self._watch()
        except _ExpiredWatchError as error:
            self._version = None
            await self._back_off(error)
        except _BrokenWatchError as error:
            if isinstance(error, _SilentWatchError):
                self._silences += 1
            if self._silences > 1:
                # Resumed once, and still not even a bookmark: do not trust the version.
                self._version = None
            await self._back_off(error)
        except ApiError as error:
            if error.status == GONE:
                self._version = None
            if error.status == _UNAUTHORIZED:
                await self._reload_credentials()
            await self._back_off(error, error.failure.retry_after or 0.0)
        return self._version

    async def list_all(self) -> int:
        """List everything once; the version of the list.

        Raises:
            ApiError: the API server does not answer, or refuses.
        """
        present = (await self._page(1)).version
        fell = present < self._floor
        if fell:
            log.warning(
                "the resource version fell from %d to %d: another cluster, or a restored one",
                self._floor,
                present,
                extra={"action": "new_generation"},
            )
        await self._consumer.relisting(fell)
        asked_at = self._monotonic()
        page = await self._page(self._settings.page_size)
        version = page.version
        if version < present:
            raise ApiError(ApiFailure(0, "version", "the resource version fell while listing"))
        await self._consumer.page(page.items)
        while page.metadata.continue_token:
            page = await self._page(self._settings.page_size, page.metadata.continue_token)
            await self._consumer.page(page.items)
        await self._consumer.listed(version)
        self._listed_at = self._proven_at = asked_at
        self._silences = 0
        self._version = self._floor = version
        return version

    async def _connect(self) -> None:
        """Make sure that there is a version that the server can resume from."""
        listed = self._version is not None and self._until_resync() > 0
        if not listed or (await self._page(1)).version < (self._version or 0):
            await self.list_all()

    async def _page(self, limit: int, token: str | None = None) -> PodPage:
        return await self._kube.list_pods(
            self._namespace, self._selector, limit=limit, continue_token=token
        )

    async def _watch(self) -> None:
        """Watch until the server ends it in time."""
        settings = self._settings
        timeout = max(1, int(min(settings.watch_timeout, self._until_resync())))
        started = self._monotonic()
        version = self._version or 0
        async with self._kube.watch_pods(
            self._namespace, self._selector, version, timeout
        ) as batches:
            reader = aiter(batches)
            while self._monotonic() - started < timeout + settings.silent_timeout:
                try:
                    async with asyncio.timeout(settings.silent_timeout):
                        lines = await anext(reader)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise _SilentWatchError(
                        f"the watch was silent for {settings.silent_timeout:g} s"
                    ) from None
                await self._deliver(lines)
        if self._monotonic() - started < _ON_TIME * timeout:
            raise _BrokenWatchError("the API server closed the watch early")
        self._failures = 0
        if self._monotonic() - self._proven_at > settings.silent_timeout:
            log.warning("no bookmark came: listing", extra={"action": "watch_unproven"})
            self._version = None

    async def _deliver(self, lines: Sequence[bytes]) -> None:
        """Tell the consumer what one read gave, up to the first line that is broken."""
        events: list[tuple[str, Pod]] = []
        for line in lines:
            if not line.strip():
                continue
            try:
                kind, body = _read(line)
            except ValueError as error:
                await self._tell(events)
                raise _BrokenWatchError(f"the watch sent garbage: {error}") from None
            if isinstance(body, Pod) and kind != "BOOKMARK":
                events.append((kind, body))
                continue
            await self._tell(events)
            events = []
            if isinstance(body, Pod):
                await self._consumer.bookmark(body.resource_version)
                self._advance(body.resource_version)
            elif self._consumer.process_error({"type": kind, "object": body}) == "0":
                raise _ExpiredWatchError("the API server has forgotten our resource version")
        await self._tell(events)

    async def _tell(self, events: Sequence[tuple[str, Pod]]) -> None:
        if events:
            await self._consumer.events(events)
            self._advance(events[-1][1].resource_version)

    def _advance(self, version: int) -> None:
        self._version = version
        self._floor = max(self._floor, version)
        self._proven_at = self._monotonic()
        self._failures = self._silences = 0

    def _until_resync(self) -> float:
        return self._listed_at + self._settings.resync_interval - self._monotonic()

    async def _reload_credentials(self) -> None:
        try:
            await self._kube.reload_credentials()
        except ClusterError as error:
            log.error("%s", error, extra={"action": "watch_credentials"})

    async def _back_off(self, error: Exception, at_least: float = 0.0) -> None:
        """Wait with full jitter, longer after each failure without anything in between."""
        settings = self._settings
        limit = min(settings.backoff_max, settings.backoff_base * 2.0 ** min(self._failures, 30))
        delay = max(self._rng.uniform(0, limit), min(at_least, settings.backoff_max))
        self._failures += 1
        log.log(
            logging.WARNING if self._failures in (1, 10) else logging.DEBUG,
            "%s; %s in %.1f s",
            error,
            "listing" if self._version is None else f"resuming from version {self._version}",
            delay,
            extra={"action": "watch_broke", "failures": self._failures},
        )
        await self._sleep(delay)


def _read(line: bytes) -> tuple[str, Pod | dict[str, Any]]:
    """One line as (type, pod), or as (ERROR, Status).

    Raises:
        ValueError: it is not a watch event.
    """
    try:
        event = PodLine.decode(line)
    except ValueError:
        error = WatchLine.decode(line)
        if error.type != "ERROR":
            raise
        status = orjson.loads(bytes(error.object))
        if not isinstance(status, dict):
            raise ValueError("an ERROR without a Status") from None
        return error.type, status
    if not event.object.resource_version:
        raise ValueError("an object without a resource version")
    return event.type, event.object
