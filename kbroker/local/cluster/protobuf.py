"""Requests in protobuf, read as the JSON that they stand for.

kubectl sends what it makes itself (`create namespace`, `create token`, …) as protobuf,
whatever else a server would take. Field numbers: the `generated.proto` files of
`k8s.io/api` and `k8s.io/apimachinery`. Only what those commands send is known; other
fields are skipped. Answers are always JSON, which clients accept as well.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TEXT, _DATA, _INT, _BOOL = "text", "data", "int", "bool"


@dataclass(frozen=True, slots=True)
class _Many:
    """A repeated field."""

    of: _Kind


@dataclass(frozen=True, slots=True)
class _Map:
    """A map with text keys."""

    of: _Kind


_Message = Mapping[int, tuple[str, "_Kind"]]
_Kind = str | _Many | _Map | _Message

_TEXTS = _Many(_TEXT)
# A quantity is a message with its text; see `_QUANTITY` in `_value`.
_QUANTITY: _Message = {1: ("string", _TEXT)}
_METADATA: _Message = {
    1: ("name", _TEXT),
    2: ("generateName", _TEXT),
    3: ("namespace", _TEXT),
    5: ("uid", _TEXT),
    6: ("resourceVersion", _TEXT),
    11: ("labels", _Map(_TEXT)),
    12: ("annotations", _Map(_TEXT)),
    14: ("finalizers", _TEXTS),
}
_RULES: _Message = {
    1: ("verbs", _TEXTS),
    2: ("apiGroups", _TEXTS),
    3: ("resources", _TEXTS),
    4: ("resourceNames", _TEXTS),
    5: ("nonResourceURLs", _TEXTS),
}
_SUBJECT: _Message = {
    1: ("kind", _TEXT),
    2: ("apiGroup", _TEXT),
    3: ("name", _TEXT),
    4: ("namespace", _TEXT),
}
_ROLE_REF: _Message = {1: ("apiGroup", _TEXT), 2: ("kind", _TEXT), 3: ("name", _TEXT)}
_REVIEWED: _Message = {
    1: ("namespace", _TEXT),
    2: ("verb", _TEXT),
    3: ("group", _TEXT),
    4: ("version", _TEXT),
    5: ("resource", _TEXT),
    6: ("subresource", _TEXT),
    7: ("name", _TEXT),
}
_ROLE: _Message = {1: ("metadata", _METADATA), 2: ("rules", _Many(_RULES))}
_BINDING: _Message = {
    1: ("metadata", _METADATA),
    2: ("subjects", _Many(_SUBJECT)),
    3: ("roleRef", _ROLE_REF),
}
_KINDS: Mapping[str, _Message] = {
    "Namespace": {1: ("metadata", _METADATA)},
    "Secret": {
        1: ("metadata", _METADATA),
        2: ("data", _Map(_DATA)),
        3: ("type", _TEXT),
        4: ("stringData", _Map(_TEXT)),
        5: ("immutable", _BOOL),
    },
    "ConfigMap": {
        1: ("metadata", _METADATA),
        2: ("data", _Map(_TEXT)),
        3: ("binaryData", _Map(_DATA)),
        4: ("immutable", _BOOL),
    },
    "ServiceAccount": {1: ("metadata", _METADATA)},
    "ResourceQuota": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("hard", _Map(_QUANTITY)), 2: ("scopes", _TEXTS)}),
    },
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "TokenRequest": {
        1: ("metadata", _METADATA),
        2: ("spec", {1: ("audiences", _TEXTS), 4: ("expirationSeconds", _INT)}),
    },
    "SelfSubjectReview": {1: ("metadata", _METADATA)},
    "SelfSubjectAccessReview": {
        1: ("metadata", _METADATA),
        2: (
            "spec",
            {
                1: ("resourceAttributes", _REVIEWED),
                2: ("nonResourceAttributes", {1: ("path", _TEXT), 2: ("verb", _TEXT)}),
            },
        ),
    },
    "SelfSubjectRulesReview": {2: ("spec", {1: ("namespace", _TEXT)})},
    "DeleteOptions": {
        1: ("gracePeriodSeconds", _INT),
        2: ("preconditions", {1: ("uid", _TEXT), 2: ("resourceVersion", _TEXT)}),
        4: ("propagationPolicy", _TEXT),
        5: ("dryRun", _TEXTS),
    },
}


def decode(body: bytes) -> dict[str, Any]:
    """The object in a request's body, as JSON has it.

    Raises:
        ValueError: it is not readable, or of a kind that is not known here.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("it has no Kubernetes envelope")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        named = _message(_bytes(envelope[1]), {1: ("apiVersion", _TEXT), 2: ("kind", _TEXT)})
        kind = named.get("kind", "")
        if kind not in _KINDS:
            raise ValueError(f"objects of kind {kind!r} are read as JSON only")
        return {**named, **_message(_bytes(envelope.get(2, b"")), _KINDS[kind])}
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"the message is cut off or malformed: {error!r}") from None


def _message(data: bytes, fields: _Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        if number not in fields:
            continue
        name, kind = fields[number]
        if isinstance(kind, _Many):
            found.setdefault(name, []).append(_value(raw, kind.of))
        elif isinstance(kind, _Map):
            entry = dict(_fields(_bytes(raw)))
            key = _bytes(entry.get(1, b"")).decode()
            found.setdefault(name, {})[key] = _value(entry.get(2, b""), kind.of)
        else:
            found[name] = _value(raw, kind)
    # Go writes the empty text of every field that has no value.
    return {name: value for name, value in found.items() if value not in ("", {})}


def _value(raw: bytes | int, kind: _Kind) -> Any:
    if kind == _TEXT:
        return _bytes(raw).decode()
    if kind == _DATA:
        return base64.b64encode(_bytes(raw)).decode()
    if kind == _INT:
        number = int(raw)
        return number - (1 << 64) if number >= 1 << 63 else number
    if kind == _BOOL:
        return bool(raw)
    if kind is _QUANTITY:
        return _message(_bytes(raw), _QUANTITY).get("string", "0")
    if isinstance(kind, str | _Many | _Map):
        raise TypeError(kind)
    return _message(_bytes(raw), kind)


def _bytes(raw: bytes | int) -> bytes:
    if not isinstance(raw, bytes):
        raise TypeError("a number where a text is meant")
    return raw


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field, in order.

    https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position + size > len(message):
            raise IndexError("a field ends behind the message")
        yield number, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
