"""Whether the API server accepts the launcher itself.

A refused token or a missing role is nobody's task's fault: everything waits while
the credentials are read anew, with back-off, until they are good.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from kbroker.errors import ClusterError
from kbroker.retry import ApiFailure, park_delay
from kbroker.settings import LauncherSettings

log = logging.getLogger(__name__)

VERBS = ("create", "get", "delete", "patch")
LOG_ACCESS = (("get", "pods/log"), ("list", "events"))


class Cluster(Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def reload_credentials(self) -> None:
        """Read the credentials anew."""

    async def check_access(self, verb: str, resource: str, namespace: str) -> None:
        """See that these credentials may do something."""


async def check_permissions(cluster: Cluster, namespace: str) -> None:
    """See that a launcher may do its work in a namespace.

    Raises:
        ClusterError: it may not; names the first thing that it may not do.
    """
    for verb in VERBS:
        await cluster.check_access(verb, "pods", namespace)


async def lacking_for_logs(cluster: Cluster, namespace: str) -> list[str]:
    """What keeps a launcher from telling of logs, in words; it works without."""
    lacks = []
    for verb, resource in LOG_ACCESS:
        try:
            await cluster.check_access(verb, resource, namespace)
        except ClusterError as error:
            lacks.append(str(error))
    return lacks


class LauncherIdentity:
    """Open while the launcher is accepted; knows why it is not.

    Args:
        cluster: the API server.
        namespace: where the launcher must be allowed to work.
        settings: bounds of the back-off.
        rng: for the jitter.
        changed: called with whether the launcher is accepted, when that changes.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        settings: LauncherSettings,
        *,
        rng: random.Random,
        changed: Callable[[bool], None] = lambda _accepted: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._settings = settings
        self._rng = rng
        self._changed = changed
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._refusal = ""
        self._recovery: asyncio.Task[None] | None = None
        self._renewals = 0

    @property
    def refusal(self) -> str:
        """Why the launcher is not accepted; "" while it is."""
        return self._refusal

    async def renewed(self, failure: ApiFailure) -> bool:
        """Read the credentials anew after a refusal; whether they are good now.

        Many requests fail at once when a token ends: the first one renews for all.
        """
        seen = self._renewals
        async with self._lock:
            if self._renewals != seen:
                return not self._refusal
            problem = await self._problem()
            self._renewals += 1
            if problem is None:
                return True
            if not self._refusal:
                self._close(problem or failure.message)
            return False

    async def close(self) -> None:
        """Stop trying."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _problem(self) -> str | None:
        try:
            await self._cluster.reload_credentials()
            await check_permissions(self._cluster, self._namespace)
        except ClusterError as error:
            return str(error)
        return None

    def _close(self, problem: str) -> None:
        self._refusal = problem
        log.error("not ready, launches wait: %s", problem, extra={"action": "not-ready"})
        self._changed(False)
        self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        tries = 0
        while self._refusal:
            await self._sleep(park_delay(tries, self._settings, self._rng))
            tries += 1
            problem = await self._problem()
            if problem is None:
                self._refusal = ""
                log.warning(
                    "ready again, credentials read anew %d times", tries, extra={"action": "ready"}
                )
                self._changed(True)
            else:
                self._refusal = problem
