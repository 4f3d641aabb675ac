"""One Secret of a service account key, created or replaced.

The key's content goes from the file to the API server, and nowhere else: not into
a message, a record, an error or a log.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import orjson

from kbroker.api_calls import ApiCalls, CallFailed
from kbroker.errors import ConfigError, KbrokerError
from kbroker.kube_client import ApiError
from kbroker.message import SecretMessage
from kbroker.naming import DEPLOYMENT, MANAGED_BY, make_safe_label_value
from kbroker.retry import Action, park_delay
from kbroker.service_account_key import FILE, ServiceAccountKey
from kbroker.settings import LauncherSettings
from kbroker.work_item import Done, Leave, Outcome, Park, WorkItem

log = logging.getLogger(__name__)

T = TypeVar("T")

SECRET_ITEM = "secret:"  # noqa: S105 - a prefix
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
_LARGEST = 1024 * 1024
_LOOKS = 3


class Secrets(Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def create_secret(self, namespace: str, manifest: dict[str, Any]) -> None:
        """Create a Secret."""

    async def get_secret(self, namespace: str, name: str) -> bytes:
        """A Secret as JSON."""

    async def replace_secret(self, namespace: str, name: str, manifest: dict[str, Any]) -> None:
        """Replace a Secret."""


class _Answer(Enum):
    DONE = "done"
    CHANGED = "changed"  # another one was here in between


class _NotYetError(KbrokerError):
    """It cannot be done now; says what is missing."""


class SecretCreation:
    """Creates and replaces Secrets.

    Args:
        secrets: the API server.
        calls: repeats requests.
        keys: the configured keys, by name.
        settings: how long it is parked.
        rng: for the jitter.
    """

    def __init__(
        self,
        secrets: Secrets,
        calls: ApiCalls,
        keys: Mapping[str, ServiceAccountKey],
        settings: LauncherSettings,
        *,
        rng: random.Random,
    ) -> None:
        self._secrets = secrets
        self._calls = calls
        self._keys = keys
        self._settings = settings
        self._rng = rng

    async def put(self, item: WorkItem, message: SecretMessage, now: int) -> Outcome:
        """Make the Secret hold what the file says; `now` is Redis' clock in ms.

        What is missing (the file, a permission) is logged and may appear: it waits.
        """
        try:
            content = await asyncio.to_thread(read_key, self._key(message))
            await self._put(message, content)
        except (ConfigError, _NotYetError) as problem:
            return self._parked(item, message, now, str(problem))
        except CallFailed as failure:
            if failure.decision.action is Action.CREDENTIALS:
                return self.not_ready(item, message, now)
            return self._parked(item, message, now, failure.guarded)
        return Done()

    def not_ready(self, item: WorkItem, message: SecretMessage, now: int) -> Outcome:
        """The launcher itself is refused: the Secret waits."""
        if item.entry is not None:
            return Leave()
        return self._parked(item, message, now, "the API server refuses this launcher")

    def _key(self, message: SecretMessage) -> ServiceAccountKey:
        if message.name not in self._keys:
            raise ConfigError(
                "kubernetes.gcp_service_account_keys of this launcher does not name it"
            )
        return self._keys[message.name]

    async def _put(self, message: SecretMessage, content: bytes) -> None:
        for _ in range(_LOOKS):
            manifest = _manifest(message, content)
            if await self._ask_create(message, manifest) is _Answer.DONE:
                log.info(
                    "secret %s/%s created",
                    message.namespace,
                    message.name,
                    extra={"action": "secret"},
                )
                return
            present = await self._look(message)
            if present is None:
                continue
            _check_ours(present, message)
            if present.get("data") == manifest["data"]:
                return
            if await self._ask_replace(message, _over(present, manifest)) is _Answer.DONE:
                log.info(
                    "secret %s/%s replaced",
                    message.namespace,
                    message.name,
                    extra={"action": "secret"},
                )
                return
        raise _NotYetError("others change it at the same time")

    async def _ask_create(self, message: SecretMessage, manifest: dict[str, Any]) -> _Answer:
        return await self._ask(lambda: self._secrets.create_secret(message.namespace, manifest))

    async def _ask_replace(self, message: SecretMessage, manifest: dict[str, Any]) -> _Answer:
        return await self._ask(
            lambda: self._secrets.replace_secret(message.namespace, message.name, manifest)
        )

    async def _ask(self, change: Callable[[], Awaitable[None]]) -> _Answer:
        async def request(_timeout: float) -> _Answer:
            try:
                await change()
            except ApiError as error:
                if error.status == 409:
                    return _Answer.CHANGED
                raise
            return _Answer.DONE

        return await self._calls.run(request)

    async def _look(self, message: SecretMessage) -> dict[str, Any] | None:
        async def request(_timeout: float) -> bytes | None:
            try:
                return await self._secrets.get_secret(message.namespace, message.name)
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

        found = await self._calls.run(request)
        return None if found is None else orjson.loads(found)

    def _parked(self, item: WorkItem, message: SecretMessage, now: int, why: str) -> Park:
        log.error(
            "secret %s/%s waits: %s",
            message.namespace,
            message.name,
            why,
            extra={"action": "secret"},
        )
        delay = park_delay(item.parking.times, self._settings, self._rng)
        name = f"{SECRET_ITEM}{message.namespace}/{message.name}"
        return Park(name, delay, item.parking.again(now))


def read_key(key: ServiceAccountKey) -> bytes:
    """The content of a key's file.

    Raises:
        ConfigError: it cannot be read, or is no key; names the file.
    """
    where = f"kubernetes.gcp_service_account_keys: {key.name}={key.path}"
    try:
        content = Path(key.path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{where}: {error.strerror or error}; the file must be where launchers run"
        ) from None
    if not content:
        raise ConfigError(f"{where}: the file is empty")
    if len(content) > _LARGEST:
        raise ConfigError(f"{where}: the file has over 1 MiB, which no Secret can hold")
    return content


def _manifest(message: SecretMessage, content: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": message.name,
            "namespace": message.namespace,
            "labels": {
                MANAGED_BY: "kbroker",
                DEPLOYMENT: make_safe_label_value(message.deployment),
            },
        },
        "type": "Opaque",
        "data": {FILE: base64.b64encode(content).decode()},
    }


def _check_ours(present: Mapping[str, Any], message: SecretMessage) -> None:
    """See that nothing of anybody else's would be lost.

    Raises:
        ConfigError: it would be.
    """
    labels = present.get("metadata", {}).get("labels") or {}
    others = sorted(set(present.get("data") or {}) - {FILE})
    if labels.get(MANAGED_BY) == "kbroker":
        owner = labels.get(DEPLOYMENT)
        if owner != make_safe_label_value(message.deployment):
            raise ConfigError(f"it belongs to deployment {owner!r}: give the key another name")
    elif others:
        raise ConfigError(
            f"a Secret of that name holds other data ({', '.join(others)}): "
            "give the key another name, or delete that Secret"
        )


def _over(present: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What replaces exactly the Secret that was looked at."""
    metadata = present["metadata"]
    kept = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    for name in ("labels", "annotations"):
        kept[name] = {**(metadata.get(name) or {}), **manifest["metadata"].get(name, {})}
    changed = {**manifest, "metadata": {**manifest["metadata"], **kept}}
    return {**changed, "type": present.get("type", manifest["type"])}
