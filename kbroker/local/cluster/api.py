"""The API server: from HTTP requests to resources, watches and logs."""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster import discovery, faults
from kbroker.local.cluster.failure import Failure, expired, too_new
from kbroker.local.cluster.logs import follow, tail
from kbroker.local.cluster.node import Node
from kbroker.local.cluster.resources import Resources
from kbroker.local.cluster.selectors import matcher
from kbroker.local.cluster.store import Object, Stored
from kbroker.local.cluster.table import table
from kbroker.local.cluster.watch import Watch, Watches

log = logging.getLogger(__name__)

_METHODS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_WATCH_FOR = 1800.0


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
    tabular: bool


@dataclass
class User:
    """Who a token belongs to, and what is denied to him."""

    name: str
    deny: list[dict[str, str]] = field(default_factory=list)

    def denied(self, call: Call) -> bool:
        """Whether a role would not let him."""
        resource = call.resource + (f"/{call.subresource}" if call.subresource else "")
        return any(
            rule.get("verb", call.verb) == call.verb and rule.get("resource", resource) == resource
            for rule in self.deny
        )


class Api:
    """Answers requests.

    Args:
        resources: what can be done.
        node: where the logs are.
        bookmark_interval: seconds between the bookmarks of a watch.
    """

    def __init__(self, resources: Resources, node: Node, bookmark_interval: float) -> None:
        self.resources = resources
        self.store = resources.store
        self.faults = faults.Faults()
        self.watches = Watches()
        self.users: dict[str, User] = {}
        self.stats: collections.Counter[str] = collections.Counter()
        self._node = node
        self._bookmark_interval = bookmark_interval

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        try:
            user = self.user(request)
            fixed = self._fixed(request, user)
            if fixed is not None:
                return await fixed
            call = _read_call(request)
            return await self._carry_out(request, call, user)
        except Failure as failure:
            return refusal(failure)
        except faults.Reset:
            return faults.cut(request)

    def user(self, request: web.Request) -> User:
        """Whose request it is.

        Raises:
            Failure: 401.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self.users.get(token) if scheme.lower() == "bearer" else None
        if user is None:
            raise Failure(401, "Unauthorized")
        return user

    def _fixed(
        self, request: web.Request, user: User
    ) -> Coroutine[Any, Any, web.StreamResponse] | None:
        """Paths that are no resources."""
        documents: dict[str, Any] = {
            "/version": discovery.VERSION,
            "/api": discovery.CORE_VERSIONS,
            "/apis": discovery.GROUPS,
            "/apis/authorization.k8s.io/v1": discovery.REVIEW_RESOURCES,
            "/openapi/v3": discovery.OPENAPI,
        }
        path = request.path.rstrip("/") or "/"
        if path in documents:
            return _later(web.json_response(documents[path]))
        if path == "/openapi/v3/api/v1":
            return _later(web.json_response(discovery.openapi_core()))
        if path == "/api/v1":
            return _later(web.json_response(discovery.core_resources()))
        if path in ("/healthz", "/readyz", "/livez"):
            return _later(web.Response(text="ok"))
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return self._review(request, user)
        return None

    async def _review(self, request: web.Request, user: User) -> web.StreamResponse:
        review = orjson.loads(await request.read())
        asked = review.get("spec", {}).get("resourceAttributes", {})
        call = Call(
            asked.get("verb", ""),
            asked.get("resource", ""),
            asked.get("namespace", ""),
            "",
            asked.get("subresource", ""),
            {},
            False,
        )
        review["status"] = {"allowed": not user.denied(call)}
        return answer(orjson.dumps(review), 201)

    async def _carry_out(self, request: web.Request, call: Call, user: User) -> web.StreamResponse:
        if user.denied(call):
            raise _no_role(user, call)
        rules = self.faults.taken(call.verb, call.resource, call.namespace, call.name)
        try:
            body = await _body(request) if request.can_read_body else None
            if rules:
                content = body if isinstance(body, dict) else {}
                named = call.name or content.get("metadata", {}).get("name", "")
                log.debug("misbehaving at %s %s", call.verb, named)
                await faults.before(rules)
            response = await self._answered(request, call, body)
            if rules:
                await faults.after(rules)
        except Failure as failure:
            self._count(call, failure.code)
            raise
        self._count(call, response.status)
        return response

    def _count(self, call: Call, status: int) -> None:
        self.stats[f"{call.verb} {call.resource} {status}"] += 1

    async def _answered(self, request: web.Request, call: Call, body: Any) -> web.StreamResponse:
        if call.subresource == "log":
            return await self._log(request, call)
        if call.verb == "watch":
            return await self._watch(request, call)
        if call.verb == "list":
            return answer(self._list(call))
        if call.verb == "get":
            stored = self.store.get(call.resource, call.namespace, call.name)
            return self._one(call, stored)
        if call.verb == "create":
            created = self.resources.create(call.resource, call.namespace, body)
            return self._one(call, created, 201)
        if call.verb == "update":
            return self._one(
                call,
                self.resources.replace(
                    call.resource, call.namespace, call.name, body, subresource=call.subresource
                ),
            )
        if call.verb == "patch":
            patch = self.resources.patch(
                call.resource,
                call.namespace,
                call.name,
                request.content_type,
                body,
                subresource=call.subresource,
            )
            return self._one(call, patch)
        options = dict(body or {})
        if "gracePeriodSeconds" in call.query:
            options["gracePeriodSeconds"] = int(call.query["gracePeriodSeconds"])
        if call.verb == "deletecollection":
            for stored in self._selected(call):
                name = stored.object["metadata"]["name"]
                self.resources.delete(call.resource, call.namespace, name, options)
            return answer(b'{"kind":"Status","apiVersion":"v1","status":"Success"}')
        gone = self.resources.delete(call.resource, call.namespace, call.name, options)
        return self._one(call, gone)

    def _one(self, call: Call, stored: Stored, status: int = 200) -> web.Response:
        if call.tabular:
            version = {"resourceVersion": str(stored.version)}
            return answer(
                orjson.dumps(table(call.resource, [stored], version, header=True)), status
            )
        return answer(stored.raw, status)

    def _selected(self, call: Call) -> list[Stored]:
        matches = matcher(call.query.get("labelSelector", ""), call.query.get("fieldSelector", ""))
        return [
            stored
            for stored in self.store.all(call.resource, call.namespace)
            if matches is None or matches(stored.object)
        ]

    def _list(self, call: Call) -> bytes:
        limit = int(call.query.get("limit") or 0)
        token = call.query.get("continue")
        if token:
            version, start = _read_token(token)
            items = self.store.continued(version)
        else:
            wanted = int(call.query.get("resourceVersion") or 0)
            if wanted > self.store.version:
                raise too_new(wanted, self.store.version)
            exact = call.query.get("resourceVersionMatch") == "Exact"
            if exact and wanted < self.store.version:
                raise expired(wanted, self.store.version)
            version, start = self.store.version, 0
            items = self._selected(call)
            if limit and len(items) > limit:
                self.store.snapshot(items)
        end = start + limit if limit else len(items)
        metadata: Object = {"resourceVersion": str(version)}
        if end < len(items):
            metadata["continue"] = _token(version, end)
            metadata["remainingItemCount"] = len(items) - end
        page = items[start:end]
        if call.tabular:
            return orjson.dumps(table(call.resource, page, metadata, header=True))
        kind = discovery.RESOURCES[call.resource][0]
        head = orjson.dumps({"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata})
        return head[:-1] + b',"items":[' + b",".join(stored.raw for stored in page) + b"]}"

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        first = True

        def render(stored: Stored) -> bytes:
            nonlocal first
            if not call.tabular:
                return stored.raw
            version = {"resourceVersion": str(stored.version)}
            header, first = first, False
            return orjson.dumps(table(call.resource, [stored], version, header=header))

        if call.query.get("sendInitialEvents") == "true":
            raise Failure(422, "sendInitialEvents is not supported by the local cluster")
        fields = call.query.get("fieldSelector", "")
        if call.name:
            fields = f"metadata.name={call.name}"
        matches = matcher(call.query.get("labelSelector", ""), fields)
        watch = Watch(self.store, call.resource, call.namespace, matches, render)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        stop = _nothing
        try:
            stop = watch.begin(int(call.query.get("resourceVersion") or 0))
        except Failure as failure:
            # As a real server: the answer has begun, the failure is an event.
            watch.fail(failure)
        self.watches.open.add(watch)
        marks = None
        if call.query.get("allowWatchBookmarks") in ("1", "true"):
            marks = (self._bookmark_interval, discovery.RESOURCES[call.resource][0])
        try:
            await response.prepare(request)
            seconds = float(call.query.get("timeoutSeconds") or _WATCH_FOR)
            with contextlib.suppress(ConnectionError):
                await watch.serve(response, seconds, marks)
                await response.write_eof()
        finally:
            stop()
            self.watches.open.discard(watch)
        return response

    async def _log(self, request: web.Request, call: Call) -> web.StreamResponse:
        stored = self.store.get("pods", call.namespace, call.name)
        container = _container(stored.object, call.query.get("container", ""))
        if "timestamps" in call.query or "sinceSeconds" in call.query:
            raise Failure(400, "the local cluster keeps no times of log lines")
        path = self._node.log_file(stored.object, container)
        state = _container_state(stored.object, container)
        if "waiting" in state and not path.exists():
            reason = state["waiting"].get("reason", "ContainerCreating")
            raise Failure(
                400,
                f'container "{container}" in pod "{call.name}" is waiting to start: {reason}',
            )
        lines = call.query.get("tailLines")
        start = await asyncio.to_thread(tail, path, None if lines is None else int(lines))
        if call.query.get("follow") not in ("1", "true"):
            text = await asyncio.to_thread(_read_from, path, start)
            limit = call.query.get("limitBytes")
            return web.Response(
                body=text[: int(limit)] if limit else text, content_type="text/plain"
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        uid = stored.object["metadata"]["uid"]

        def ended() -> bool:
            present = self.store.find("pods", call.namespace, call.name)
            if present is None or present.object["metadata"]["uid"] != uid:
                return True
            return "terminated" in _container_state(present.object, container)

        with contextlib.suppress(ConnectionError):
            async for piece in follow(path, start, ended):
                await response.write(piece)
            await response.write_eof()
        return response


def answer(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=body, status=status, content_type="application/json")


def refusal(failure: Failure) -> web.Response:
    """A failure as an answer."""
    response = answer(orjson.dumps(failure.status()), failure.code)
    if "retryAfterSeconds" in failure.details:
        response.headers["Retry-After"] = str(failure.details["retryAfterSeconds"])
    return response


async def _later(response: web.StreamResponse) -> web.StreamResponse:
    return response


def _nothing() -> None:
    return None


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if not data:
        return None
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise Failure(400, f"the body of the request is not JSON: {error}") from error


def _read_call(request: web.Request) -> Call:
    parts = request.path.strip("/").split("/")
    if parts[:2] != ["api", "v1"] or len(parts) < 3:
        raise Failure(404, "the server could not find the requested resource", "NotFound")
    parts = parts[2:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] in discovery.RESOURCES:
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "")[:3]
    if resource not in discovery.RESOURCES or len(parts) > 3:
        raise Failure(404, "the server could not find the requested resource", "NotFound")
    query = dict(request.query)
    watching = query.get("watch") in ("1", "true")
    if request.method == "GET":
        verb = "watch" if watching else ("get" if name else "list")
    else:
        verb = _METHODS.get(request.method, "")
        if verb == "delete" and not name:
            verb = "deletecollection"
    if not verb:
        raise Failure(405, "the server does not allow this method on the requested resource")
    accept = request.headers.get("Accept", "")
    return Call(verb, resource, namespace, name, subresource, query, "as=Table" in accept)


def _no_role(user: User, call: Call) -> Failure:
    resource = call.resource + (f"/{call.subresource}" if call.subresource else "")
    name = f' "{call.name}"' if call.name else ""
    where = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
    return Failure(
        403,
        f'{call.resource}{name} is forbidden: User "{user.name}" cannot {call.verb} resource '
        f'"{resource}" in API group ""{where}',
        name=call.name or None,
        kind=call.resource,
    )


def _token(version: int, start: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([version, start])).decode()


def _read_token(token: str) -> tuple[int, int]:
    try:
        version, start = orjson.loads(base64.urlsafe_b64decode(token))
        return int(version), int(start)
    except (ValueError, TypeError) as error:
        raise Failure(400, "continue key is not valid") from error


def _container(pod: Object, wanted: str) -> str:
    names = [
        c["name"] for c in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    ]
    if wanted and wanted not in names:
        name = pod["metadata"]["name"]
        raise Failure(400, f"container {wanted} is not valid for pod {name}")
    return wanted or str(names[0])


def _container_state(pod: Object, container: str) -> Object:
    status = pod["status"]
    for given in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        if given["name"] == container:
            state: Object = given["state"]
            return state
    return {"waiting": {"reason": "ContainerCreating"}}


def _read_from(path: Path, start: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as log_file:
        log_file.seek(start)
        return log_file.read()
