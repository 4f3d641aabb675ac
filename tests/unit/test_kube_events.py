"""Lists of Kubernetes' Events: what is read of them, and in which order."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kbroker.kube_events import KubeEvent, kube_events


def listed(*items: dict[str, Any]) -> bytes:
    return orjson.dumps({"kind": "EventList", "items": list(items)})


def at(moment: str, reason: str, **fields: Any) -> dict[str, Any]:
    return {"lastTimestamp": moment, "type": "Normal", "reason": reason, "message": "m", **fields}


def test_the_oldest_first_and_of_one_second_as_listed() -> None:
    data = listed(
        at("2026-01-01T00:00:02Z", "Pulling"),
        at("2026-01-01T00:00:02Z", "Failed"),
        at("2026-01-01T00:00:01Z", "Scheduled"),
    )
    assert [event.reason for event in kube_events(data)] == ["Scheduled", "Pulling", "Failed"]


@pytest.mark.parametrize(
    ("fields", "moment"),
    [
        ({"lastTimestamp": "3", "eventTime": "2"}, "3"),
        ({"lastTimestamp": None, "eventTime": "2", "metadata": {"creationTimestamp": "1"}}, "2"),
        ({"eventTime": None, "metadata": {"creationTimestamp": "1"}}, "1"),
        ({"eventTime": "2", "series": {"count": 9, "lastObservedTime": "4"}}, "4"),
        ({"series": None, "metadata": {}}, ""),
    ],
)
def test_when_it_was_last_seen(fields: dict[str, Any], moment: str) -> None:
    assert kube_events(listed(fields)) == (KubeEvent(moment, "", "", ""),)


@pytest.mark.parametrize("data", [listed(), b"{}", b'{"items": null}'])
def test_none(data: bytes) -> None:
    assert kube_events(data) == ()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"items": 7}', b'{"items": [{"reason": 7}]}'])
def test_what_is_no_list_of_events(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        kube_events(data)
