"""The admin endpoint, `/_local/`: misbehaviour on demand, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster.api import Api
from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import answer, refusal
from kbroker.local.cluster.users import ADMIN, User


class Admin:
    """Tells the local cluster how to behave; only the admin's token may.

    Args:
        api: the API server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._steps: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): lambda _: self._api.faults.clear(),
            ("POST", "watches"): lambda body: {"watches": api.watches.misbehave(body["action"])},
            ("POST", "compact"): lambda _: api.store.compact(),
            ("POST", "tokens"): self._add_token,
            ("POST", "policy"): self._set_policy,
            ("GET", "stats"): lambda _: dict(api.stats),
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request below `/_local/`."""
        try:
            if self._api.users.of(request).name != ADMIN:
                raise Failure(403, "only the admin may do this")
            body = orjson.loads(await request.read() or b"null")
            return answer(orjson.dumps(self._carry_out(request, body) or {}))
        except Failure as failure:
            return refusal(failure)
        except (KeyError, TypeError, ValueError) as error:
            return refusal(Failure(400, f"not a request for this endpoint: {error!r}"))

    def _carry_out(self, request: web.Request, body: Any) -> Any:
        parts = request.path.strip("/").split("/")[1:]
        step = self._steps.get((request.method, parts[0] if len(parts) == 1 else ""))
        if step is not None:
            return step(body)
        if request.method == "POST" and parts[:1] == ["pods"] and parts[3:] == ["status"]:
            return self._set_pod_status(parts[1], parts[2], body)
        raise Failure(404, f"no such endpoint: {request.method} {request.path}", "NotFound")

    def _add_fault(self, body: Any) -> None:
        self._api.faults.add(body)

    def _set_policy(self, body: Any) -> None:
        self._api.resources.create_before_policy = bool(body["create_before"])

    def _add_token(self, body: Any) -> dict[str, str]:
        return {"token": self._api.users.add(User(body["user"], body.get("deny", [])))}

    def _set_pod_status(self, namespace: str, name: str, body: Any) -> None:
        self._api.resources.patch(
            "pods",
            namespace,
            name,
            "application/merge-patch+json",
            {"status": body},
            subresource="status",
        )
