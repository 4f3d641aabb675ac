"""The API server: from HTTP requests to resources, lists, watches and logs."""

from __future__ import annotations

import collections
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster import discovery, faults, reviews
from kbroker.local.cluster.disruptions import Disruptions
from kbroker.local.cluster.failure import Failure, invalid
from kbroker.local.cluster.listing import page, selected
from kbroker.local.cluster.node import Node
from kbroker.local.cluster.pod_log import PodLogs
from kbroker.local.cluster.request import Call, answer, read_body, read_call, refusal
from kbroker.local.cluster.resources import Resources
from kbroker.local.cluster.selectors import matcher
from kbroker.local.cluster.store import Stored, timestamp
from kbroker.local.cluster.table import table
from kbroker.local.cluster.users import ServiceAccount, User, Users
from kbroker.local.cluster.watch import Watch, Watches

log = logging.getLogger(__name__)

_WATCH_FOR = 1800.0
_SUCCESS = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'
_TOKEN_FOR = 3600
_ALIVE = ("/healthz", "/readyz", "/livez")


class Api:
    """Answers requests.

    Args:
        resources: what can be done.
        node: runs the pods, and has their logs.
        bookmark_interval: seconds between the bookmarks of a watch.
    """

    def __init__(self, resources: Resources, node: Node, bookmark_interval: float) -> None:
        self.resources = resources
        self.store = resources.store
        self.disruptions = Disruptions(resources, node)
        self.faults = faults.Faults()
        self.watches = Watches()
        self.users = Users(self.store)
        self.stats: collections.Counter[str] = collections.Counter()
        self._logs = PodLogs(self.store, node)
        self._bookmark_interval = bookmark_interval

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        try:
            path = request.path.rstrip("/")
            if path in _ALIVE:
                return web.Response(text="ok")
            user = self.users.of(request)
            reviewed = await reviews.review(request, self.store, user)
            if reviewed is not None:
                return reviewed
            document = discovery.document(path) if request.method == "GET" else None
            if document is not None:
                return answer(orjson.dumps(document))
            return await self._carry_out(request, read_call(request), user)
        except Failure as failure:
            return refusal(failure)
        except faults.PlainFailure as plain:
            return web.Response(text=f"{plain}\n", status=plain.failure.code)
        except faults.Reset:
            return faults.cut(request)
        except ConnectionError:
            raise
        except Exception:
            # A client gets an answer whatever goes wrong, as from a real server.
            log.exception("%s %s", request.method, request.path)
            return refusal(Failure(500, "Internal error occurred: see the local cluster's log"))

    async def _carry_out(self, request: web.Request, call: Call, user: User) -> web.StreamResponse:
        outcome = "reset"
        try:
            user.check(call)
            body = await read_body(request)
            rules = self.faults.taken(
                call.verb, call.resource, call.namespace, call.name or _name(body)
            )
            await faults.before(rules)
            response = await self._answered(request, call, body)
            await faults.after(rules)
            outcome = str(response.status)
        except Failure as failure:
            outcome = str(failure.code)
            raise
        finally:
            self.stats[f"{call.verb} {call.full_resource} {outcome}"] += 1
        return response

    async def _answered(self, request: web.Request, call: Call, body: Any) -> web.StreamResponse:
        if call.subresource == "log":
            return await self._logs.serve(request, call)
        if call.verb == "watch":
            return await self._watch(request, call)
        if call.verb == "list":
            return answer(page(self.store, call))
        if call.subresource == "token":
            return self._token(call, body)
        with self.store.trial() if _dry_run(call, body) else contextlib.nullcontext():
            return self._written(request, call, body)

    def _written(self, request: web.Request, call: Call, body: Any) -> web.Response:
        if call.verb == "deletecollection":
            for stored in selected(self.store, call):
                name = stored.object["metadata"]["name"]
                self.resources.delete(call.resource, call.namespace, name, _options(call, body))
            return answer(_SUCCESS)
        if call.subresource == "binding":
            self.resources.bind(call.namespace, call.name, body)
            return answer(_SUCCESS, 201)
        if call.subresource == "eviction":
            self.disruptions.eviction(call.namespace, call.name, body)
            return answer(_SUCCESS, 201)
        stored = self._changed(call, request.content_type, body)
        return self._one(call, stored, 201 if call.verb == "create" else 200)

    def _token(self, call: Call, body: Any) -> web.Response:
        """A token of a service account, good for its time and while the account exists."""
        spec = (body.get("spec") if isinstance(body, dict) else None) or {}
        seconds = int(spec.get("expirationSeconds") or _TOKEN_FOR)
        account = ServiceAccount(self.store, call.namespace, call.name, seconds)
        token = self.users.add(account)
        ends = timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
        content = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": call.name, "namespace": call.namespace},
            "spec": {**spec, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": ends},
        }
        return answer(orjson.dumps(content), 201)

    def _changed(self, call: Call, content_type: str, body: Any) -> Stored:
        """The object that the call is about, after the call."""
        where = (call.resource, call.namespace, call.name)
        if call.verb == "get":
            return self.store.get(*where)
        if call.verb == "create":
            return self.resources.create(call.resource, call.namespace, body)
        if call.verb == "update":
            return self.resources.replace(*where, body, subresource=call.subresource)
        if call.verb == "patch":
            return self.resources.patch(*where, content_type, body, subresource=call.subresource)
        return self.resources.delete(*where, _options(call, body))

    def _one(self, call: Call, stored: Stored, status: int) -> web.Response:
        if call.tabular:
            version = {"resourceVersion": str(stored.version)}
            body = orjson.dumps(table(call.resource, [stored], version, header=True))
            return answer(body, status)
        return answer(stored.raw, status)

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        header = True

        def render(stored: Stored) -> bytes:
            nonlocal header
            if not call.tabular:
                return stored.raw
            version = {"resourceVersion": str(stored.version)}
            row = orjson.dumps(table(call.resource, [stored], version, header=header))
            header = False
            return row

        if call.flag("sendInitialEvents"):
            raise Failure(422, "sendInitialEvents is not supported by the local cluster")
        fields = call.query.get("fieldSelector", "")
        if call.name:
            fields = f"metadata.name={call.name}"
        matches = matcher(call.query.get("labelSelector", ""), fields)
        seconds = float(call.number("timeoutSeconds") or _WATCH_FOR)
        version = call.number("resourceVersion") or 0
        marks = None
        if call.flag("allowWatchBookmarks"):
            marks = (self._bookmark_interval, discovery.RESOURCES[call.resource][0])
        watch = Watch(self.store, call.resource, call.namespace, matches, render)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        with contextlib.ExitStack() as over:
            try:
                over.callback(watch.begin(version))
            except Failure as failure:
                # As a real server: the answer has begun, the failure is an event.
                watch.fail(failure)
            self.watches.open.add(watch)
            over.callback(self.watches.open.discard, watch)
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                await watch.serve(response, seconds, marks)
                await response.write_eof()
        return response


def _name(body: Any) -> str:
    """The name in a created object."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""


def _dry_run(call: Call, body: Any) -> bool:
    """Whether nothing is to be kept, by the query or by a DELETE's options.

    Raises:
        Failure: 422, a value that does not exist.
    """
    given: Any = [call.query["dryRun"]] if "dryRun" in call.query else []
    if call.verb in ("delete", "deletecollection") and isinstance(body, dict):
        given = body.get("dryRun") or given
    if given in ([], ["All"]):
        return bool(given)
    problem = f'Unsupported value: {orjson.dumps(given).decode()}: supported values: "All"'
    raise invalid(f"{call.verb.title()}Options", "", [("dryRun", problem)])


def _options(call: Call, body: Any) -> dict[str, Any]:
    """A DELETE's options, from its body and its query.

    Raises:
        Failure: 400, they cannot be read.
    """
    if body is not None and not isinstance(body, dict):
        raise Failure(400, "the body of the request is not an object")
    options = dict(body or {})
    grace = call.number("gracePeriodSeconds")
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    given = options.get("gracePeriodSeconds")
    preconditions = options.get("preconditions")
    if not isinstance(given, int | None) or not isinstance(preconditions, dict | None):
        raise Failure(400, "DeleteOptions cannot be read: wrong type of a field")
    return options
