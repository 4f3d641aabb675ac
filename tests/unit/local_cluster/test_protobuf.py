"""What kubectl sends as protobuf, read as JSON; the integration tests ask kubectl itself."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.local.cluster.protobuf import decode


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def sent(kind: str, *fields: bytes, version: str = "v1") -> bytes:
    type_meta = field(1, version) + field(2, kind)
    return b"k8s\x00" + field(1, type_meta) + field(2, b"".join(fields)) + field(4, "")


def entry(key: str, value: bytes | str) -> bytes:
    return field(1, key) + field(2, value)


META = field(1, field(1, "x") + field(3, "jobs") + field(5, "") + field(11, entry("a", "b")))
METADATA = {"name": "x", "namespace": "jobs", "labels": {"a": "b"}}


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("Namespace", [META], {}),
        (
            "Secret",
            [META, field(2, entry("k", b"\xff\x00")), field(3, "Opaque"), field(5, 1)],
            {"data": {"k": "/wA="}, "type": "Opaque", "immutable": True},
        ),
        ("ConfigMap", [META, field(2, entry("k", "v"))], {"data": {"k": "v"}}),
        (
            "ResourceQuota",
            [META, field(2, field(1, entry("pods", field(1, "5"))))],
            {"spec": {"hard": {"pods": "5"}}},
        ),
        (
            "Role",
            [META, field(2, field(1, "get") + field(1, "list") + field(2, "") + field(3, "pods"))],
            {"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]},
        ),
        (
            "RoleBinding",
            [META, field(2, field(1, "ServiceAccount") + field(3, "sa")), field(3, field(3, "r"))],
            {"subjects": [{"kind": "ServiceAccount", "name": "sa"}], "roleRef": {"name": "r"}},
        ),
        ("TokenRequest", [META, field(2, field(4, 3600))], {"spec": {"expirationSeconds": 3600}}),
        (
            "DeleteOptions",
            [field(1, (1 << 64) - 1), field(2, field(1, "u")), field(4, "Background")],
            {
                "gracePeriodSeconds": -1,
                "preconditions": {"uid": "u"},
                "propagationPolicy": "Background",
            },
        ),
    ],
)
def test_a_message_as_json(kind, fields, expected):
    metadata = {} if kind == "DeleteOptions" else {"metadata": METADATA}
    found = decode(sent(kind, *fields))
    assert found == {"apiVersion": "v1", "kind": kind, **metadata, **expected}


def test_unknown_fields_of_every_wire_type_are_skipped():
    unknown = field(900, 7) + field(901, "x") + varint(902 << 3 | 1) + b"8" * 8
    unknown += varint(903 << 3 | 5) + b"4" * 4
    assert decode(sent("Namespace", unknown, META))["metadata"] == METADATA


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{}", "it has no Kubernetes envelope"),
        (sent("Pod"), "objects of kind 'Pod' are read as JSON only"),
        (sent("Namespace", META)[:-9], "cut off or malformed"),
        (b"k8s\x00" + varint(1 << 3 | 3), "wire type 3"),
        (b"k8s\x00" + field(1, 5), "cut off or malformed"),
        (b"k8s\x00", "cut off or malformed"),
    ],
)
def test_what_cannot_be_read_is_said(body, problem):
    with pytest.raises(ValueError, match=problem):
        decode(body)


@given(st.binary(max_size=60))
def test_anything_is_read_or_refused(body):
    with contextlib.suppress(ValueError):
        decode(b"k8s\x00" + body)
