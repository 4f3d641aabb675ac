"""Expansion of references in commands and variables."""

from __future__ import annotations

import pytest

from kbroker.local.cluster.environment import expanded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y$(A)z"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
        ("100$", "100$"),
        ("$(odd name)", "$(odd name)"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    # The cases of k8s.io/kubernetes/third_party/forked/golang/expansion.
    assert expanded(text, {"A": "1", "B": "$(A)"}) == expected
