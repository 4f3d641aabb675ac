"""One request for resources, read from HTTP; and answers written to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster import protobuf
from kbroker.local.cluster.discovery import GROUPS_OF, RESOURCES
from kbroker.local.cluster.failure import Failure

_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = {
    "pods": ("log", "status", "binding", "eviction"),
    "namespaces": ("status",),
    "nodes": ("status",),
    "resourcequotas": ("status",),
    "serviceaccounts": ("token",),
}
_CREATED = ("binding", "eviction", "token")  # subresources of one object that are POSTed


@dataclass(frozen=True, slots=True)
class Call:
    """One request for resources.

    Attributes:
        verb: create, get, list, watch, update, patch, delete or deletecollection.
        resource: such as "pods".
        namespace: "" for all, or for what has none.
        name: "" for a collection.
        subresource: "log", "status" or "".
        query: the query's parameters.
        tabular: whether the client wants Tables.
    """

    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]
    tabular: bool = False

    @property
    def full_resource(self) -> str:
        """The resource as roles name it: "pods/log"."""
        return self.resource + (f"/{self.subresource}" if self.subresource else "")

    def number(self, name: str) -> int | None:
        """A number in the query; None without one.

        Raises:
            Failure: 400, it is not a whole number, or below 0.
        """
        given = self.query.get(name)
        if not given:
            return None
        if not given.isascii() or not given.isdigit():
            raise Failure(400, f"invalid value for {name}: {given!r} is not a whole number")
        return int(given)

    def flag(self, name: str) -> bool:
        """Whether a switch in the query is on."""
        return _on(self.query.get(name))


def _on(given: str | None) -> bool:
    """A switch as an API server reads it; clients send 1, true and True."""
    return given is not None and given.lower() not in ("0", "false")


def read_call(request: web.Request) -> Call:
    """What is asked for.

    Raises:
        Failure: 404, there is no such resource; 405, it has no such method.
    """
    group, parts = _group(request.path.strip("/").split("/"))
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _SUBRESOURCES["namespaces"]:
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "")[:3]
    if resource not in RESOURCES or GROUPS_OF.get(resource, "") != group or len(parts) > 3:
        raise _unknown()
    if subresource and subresource not in _SUBRESOURCES.get(resource, ()):
        raise _unknown()
    query = dict(request.query)
    call = Call(
        _verb(request.method, "" if subresource in _CREATED else name, query),
        resource,
        namespace,
        name,
        subresource,
        query,
        "as=Table" in request.headers.get("Accept", ""),
    )
    if RESOURCES[resource][3] and not namespace and call.verb not in ("list", "watch"):
        raise Failure(405, "the server does not allow this method on the requested resource")
    return call


def _group(parts: list[str]) -> tuple[str, list[str]]:
    """The API group of a path, and the path below it.

    Raises:
        Failure: 404.
    """
    group = ""
    if parts[0] == "apis" and len(parts) > 1:
        group, parts = parts[1], ["api", *parts[2:]]
    if parts[:2] != ["api", "v1"] or not 3 <= len(parts) <= 7:
        raise _unknown()
    return group, parts[2:]


def _verb(method: str, name: str, query: dict[str, str]) -> str:
    if method == "GET":
        if _on(query.get("watch")):
            return "watch"
        return "get" if name else "list"
    verb = _METHODS.get(method, "")
    if verb == "delete" and not name:
        return "deletecollection"
    if not verb or (verb == "create") == bool(name):
        raise Failure(405, "the server does not allow this method on the requested resource")
    return verb


def _unknown() -> Failure:
    return Failure(404, "the server could not find the requested resource")


async def read_body(request: web.Request) -> Any:
    """The body, decoded; None without one.

    Raises:
        Failure: 400, it is not JSON; 413, it is too large; 415, it says that it is not JSON.
    """
    try:
        data = await request.read() if request.can_read_body else b""
    except web.HTTPRequestEntityTooLarge as error:
        raise Failure(413, "Request entity too large: limit is 3145728") from error
    if not data:
        return None
    if request.content_type == protobuf.MEDIA_TYPE:
        try:
            return protobuf.decode(data)
        except ValueError as error:
            raise Failure(400, f"the body of the request is not readable: {error}") from error
    if request.content_type.endswith(("cbor", "yaml")):
        raise Failure(
            415,
            "the body of the request was in an unknown format - accepted media types include: "
            f"application/json, {protobuf.MEDIA_TYPE}",
        )
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise Failure(400, f"the body of the request is not JSON: {error}") from error


def answer(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=body, status=status, content_type="application/json")


def refusal(failure: Failure) -> web.Response:
    """A failure as an answer."""
    response = answer(orjson.dumps(failure.status()), failure.code)
    if "retryAfterSeconds" in failure.details:
        response.headers["Retry-After"] = str(failure.details["retryAfterSeconds"])
    return response
