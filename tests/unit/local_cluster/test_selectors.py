"""Label and field selectors, by table."""

from __future__ import annotations

import pytest

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.selectors import matcher

POD = {
    "metadata": {"name": "a", "namespace": "n", "labels": {"app": "web", "x.org/y": "1"}},
    "spec": {"nodeName": "local"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("labels", "fields", "expected"),
    [
        ("app=web", "", True),
        ("app = web , x.org/y == 1", "", True),
        ("app=db", "", False),
        ("app!=db", "", True),
        ("none!=db", "", True),
        ("app in (db,web)", "", True),
        ("app notin (db, web)", "", False),
        ("none notin (db)", "", True),
        ("none in (db)", "", False),
        ("app in (web),x.org/y notin (2)", "", True),
        ("app", "", True),
        ("!app", "", False),
        ("!none", "", True),
        ("", "metadata.name=a,metadata.namespace==n", True),
        ("", "metadata.name!=a", False),
        ("", "spec.nodeName=", False),
        ("", "status.podIP=", True),
        ("app=web", "status.phase=Pending", False),
    ],
)
def test_selector(labels: str, fields: str, expected: bool) -> None:
    matches = matcher(labels, fields)
    assert matches is not None
    assert matches(POD) is expected


def test_empty_selector_needs_no_test() -> None:
    assert matcher("", " ") is None


@pytest.mark.parametrize(
    ("labels", "fields"), [("a b", ""), ("a in b", ""), ("", "metadata.name"), ("", "spec.x=1")]
)
def test_unreadable_selector(labels: str, fields: str) -> None:
    with pytest.raises(Failure) as refused:
        matcher(labels, fields)
    assert refused.value.code == 400


def test_object_without_labels() -> None:
    matches = matcher("!app", "")
    assert matches is not None
    assert matches({"metadata": {"name": "a", "labels": None}})
