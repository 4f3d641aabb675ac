"""The Events that schedulers, kubelets and others write about a pod.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class KubeEvent(NamedTuple):
    """One of them: when it was last seen (RFC 3339, "" if unknown), and what it says."""

    at: str
    type: str
    reason: str
    message: str


class _Metadata(msgspec.Struct, rename="camel"):
    creation_timestamp: str | None = None


class _Series(msgspec.Struct, rename="camel"):
    last_observed_time: str | None = None


class _Item(msgspec.Struct, rename="camel"):
    type: str | None = None
    reason: str | None = None
    message: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: _Series | None = None
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _List(msgspec.Struct):
    items: list[_Item] | None = None


_DECODER = msgspec.json.Decoder(_List)


def kube_events(data: bytes) -> tuple[KubeEvent, ...]:
    """What an EventList as JSON says, the oldest first.

    Raises:
        ValueError: it is not one.
    """
    found = [
        KubeEvent(_last_seen(one), one.type or "", one.reason or "", one.message or "")
        for one in _DECODER.decode(data).items or ()
    ]
    # Times are often whole seconds; the list's own order tells those of one second apart.
    return tuple(sorted(found, key=lambda event: event.at))


def _last_seen(one: _Item) -> str:
    series = one.series.last_observed_time if one.series is not None else None
    return series or one.last_timestamp or one.event_time or one.metadata.creation_timestamp or ""
