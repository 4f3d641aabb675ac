"""Namespaces without room: who waits there, and who looks whether that has changed.

A quota refuses every launch of its namespace alike, so one launch a second looks for all of
them, whichever launcher has it in hand. When it finds room, two follow, then four, and so on,
until one is refused again. Who was refused goes to the end, so that a big one does not keep
small ones waiting. Launches of other namespaces are not concerned.

A launch that waits is parked like any other; what is kept here only makes it due. Were it
lost, the launch would fall due after its delay, and ask for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kbroker.keys import RedisKeys
from kbroker.redis_client import Call, script

# Milliseconds between two looks for room in one namespace.
LOOK_EVERY = 1000
# The most launches that are let out at once.
_MOST = 128
# A namespace for which nobody asks is forgotten after this time, in ms.
_REMEMBERED = 600_000


@dataclass(frozen=True, slots=True)
class Full:
    """A namespace without room.

    Attributes:
        why: in the API server's words.
        may: for each of the launches that were asked for, whether it may be tried all the same.
    """

    why: str
    may: tuple[bool, ...]


class Rooms:
    """Builds the script calls for one cluster.

    Args:
        keys: names of the keys.
        cluster: name of the cluster.
    """

    def __init__(self, keys: RedisKeys, cluster: str) -> None:
        self._keys = keys
        self._cluster = cluster

    def ask(self, namespace: str, items: Sequence[str]) -> Call[Full | None]:
        """Which of these may be tried; None if nothing is known against any of them.

        Args:
            namespace: of all of them.
            items: names of parked launches; "" for one that was not parked.
        """
        return Call(script("room_ask"), self._of(namespace), (namespace, LOOK_EVERY, *items), _full)

    def wait(self, namespace: str, item: str, why: str) -> Call[int]:
        """A launch that is parked waits for room.

        Args:
            namespace: where.
            item: the launch's name in the parked set.
            why: the API server's refusal; "" if it was not asked.
        """
        return Call(
            script("room_wait"),
            (*self._of(namespace), self._keys.parked(self._cluster)),
            (namespace, LOOK_EVERY, _REMEMBERED, item, why),
            int,
        )

    def found(self, namespace: str) -> Call[int]:
        """A launch found room where there was none."""
        return Call(script("room_found"), self._of(namespace)[:2], (namespace, _MOST), int)

    def let_out(self) -> Call[int]:
        """Make those due whose turn it is to look for room."""
        return Call(
            script("room_let_out"),
            (self._keys.full(self._cluster), self._keys.parked(self._cluster)),
            (LOOK_EVERY, _REMEMBERED),
            int,
        )

    def _of(self, namespace: str) -> tuple[str, str, str]:
        keys, cluster = self._keys, self._cluster
        return (
            keys.full(cluster),
            keys.full_namespace(cluster, namespace),
            keys.full_launches(cluster, namespace),
        )


def _full(reply: Any) -> Full | None:
    if not reply:
        return None
    why, *may = reply
    return Full(why.decode(), tuple(bool(answer) for answer in may))
