"""What the three roles' calls on launch records have in common.

Each role has its own: `launch_record` the executor's, `launcher_record` the launcher's,
`watcher_record` the watcher's. One method for each Lua script of `lua/`; a method only
builds a `Call`, which `redis_client.run` or `run_async` executes, any number of them in
one pipeline. Every rule about who may write what is decided inside the scripts, by
Redis' clock, in one atomic step each.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from kbroker.event import Cause, PodEvent, PodState
from kbroker.keys import RedisKeys
from kbroker.message import DeleteMessage
from kbroker.redis_client import Call, script
from kbroker.task import Attempt


class RecordScripts:
    """Builds the script calls for one prefix.

    Args:
        keys: names of the keys.
        record_ttl: seconds that a closed record is kept.
        create_window: seconds after a grant within which a pod may be created.
    """

    def __init__(self, keys: RedisKeys, record_ttl: float, create_window: float) -> None:
        self.keys = keys
        self._ttl = int(record_ttl * 1000)
        self._window = int(create_window * 1000)
        # Events are many, and their places few.
        self._watched = lru_cache(maxsize=64)(self._place_keys)

    def _apply(
        self, event: PodEvent, *, token: str, gone: bool, leader: str, after: int | None = None
    ) -> Call[str]:
        attempt = event.attempt
        return Call(
            script("apply"),
            (
                self.keys.task(attempt.launch.digest),
                *self._watched(event.cluster, event.namespace),
            ),
            (
                self.keys.prefix,
                token,
                event.encode(),
                event.pod,
                event.uid or "",
                str(event.resource_version),
                attempt.number,
                event.state,
                int(event.final),
                int(gone),
                leader,
                self._window,
                "" if after is None else after,
                _waits_for(event),
            ),
            text,
        )

    def _condemn(self, event: PodEvent, cause: Cause, message: str, *, token: str) -> Call[str]:
        return Call(
            script("condemn"),
            (
                self.keys.task(event.launch.digest),
                self.keys.lease(event.cluster, event.namespace),
            ),
            (
                self.keys.prefix,
                token,
                event.uid or "",
                str(event.resource_version),
                event.attempt.number,
                orjson.dumps({"cause": cause.value, "message": message}),
                event.pod,
            ),
            text,
        )

    def _place_keys(self, cluster: str, namespace: str) -> tuple[str, str, str]:
        keys = self.keys
        return (
            keys.pods(cluster, namespace),
            keys.watch(cluster, namespace),
            keys.lease(cluster, namespace),
        )


def _waits_for(event: PodEvent) -> str:
    """What a pod that has not started waits for; "" for any other."""
    if event.state is not PodState.PENDING:
        return ""
    return f"{event.cause or event.state}: {event.message or ''}"


def launch_item(attempt: Attempt) -> str:
    """Name of a parked launch."""
    return f"launch:{attempt.launch.digest}:{attempt.number}"


def removal_item(message: DeleteMessage) -> str:
    """Name of a parked removal."""
    return f"{message.removal.value}:{message.uid}"


def text(reply: Any) -> str:
    """A script's answer of one word."""
    return str(reply.decode())
