"""SelfSubjectAccessReview: whether its sender may do something.

kubectl sends it as protobuf, everything else here is JSON; so this one message is read from
both. Field numbers: `k8s.io/api/authorization/v1/generated.proto`, and
`k8s.io/apimachinery/pkg/runtime/generated.proto` for the envelope.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import Call, answer, read_body
from kbroker.local.cluster.users import User

PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

_PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_RAW, _SPEC, _RESOURCE = 2, 2, 1
_ATTRIBUTES = {1: "namespace", 2: "verb", 3: "group", 5: "resource", 6: "subresource", 7: "name"}


async def review(request: web.Request, user: User) -> web.Response:
    """Answer a review.

    Raises:
        Failure: 400, it cannot be read.
    """
    if request.content_type == _PROTOBUF:
        asked: Any = _attributes(await request.read())
    else:
        body = await read_body(request)
        spec = body.get("spec") if isinstance(body, dict) else None
        asked = spec.get("resourceAttributes") if isinstance(spec, dict) else None
    if not isinstance(asked, dict):
        raise Failure(400, "a review needs spec.resourceAttributes")
    verb, resource, namespace, subresource = (
        str(asked.get(name) or "") for name in ("verb", "resource", "namespace", "subresource")
    )
    call = Call(verb, resource, namespace, "", subresource, {})
    content = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"resourceAttributes": asked},
        "status": {"allowed": not user.denied(call)},
    }
    return answer(orjson.dumps(content), 201)


def _attributes(body: bytes) -> dict[str, str]:
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("no envelope")
        raw = _fields(body[len(_MAGIC) :])[_RAW]
        found = _fields(_fields(_fields(raw)[_SPEC])[_RESOURCE])
        return {name: found[n].decode() for n, name in _ATTRIBUTES.items() if n in found}
    except (ValueError, KeyError, IndexError) as error:
        raise Failure(400, f"the protobuf message cannot be read: {error!r}") from error


def _fields(message: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message; others are skipped.

    https://protobuf.dev/programming-guides/encoding/
    """
    found = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            _, position = _varint(message, position)
        elif wire_type == 2:
            size, position = _varint(message, position)
            found[number] = message[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire_type}")
    return found


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position
