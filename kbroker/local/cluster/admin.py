"""The admin endpoint, `/_local/`: misbehaviour on demand, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster.api import Api
from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import answer, refusal
from kbroker.local.cluster.roles import AUTHENTICATED, Identity
from kbroker.local.cluster.store import State
from kbroker.local.cluster.users import ADMIN, DeniedUser, User

_QUOTA = "local"


class Admin:
    """Tells the local cluster how to behave; only the admin's token may.

    | request | what happens |
    | --- | --- |
    | POST faults | a rule of `faults.Rule` |
    | DELETE faults | no rules, or none of a "name"; says how many requests they met |
    | POST watches {"action": …} | to all open watches: drop, silence, mute (bookmarks only), |
    | | garbage, half_line, error410, error500 |
    | POST compact | all history is forgotten: older versions answer 410 |
    | POST snapshot, restore | the store goes back to what it was; versions fall. With |
    | | {"keep_pods": true} not where that would lose pods: it says which |
    | POST policy {"create_before": bool} | the create-before policy is there or not |
    | POST quota {"namespace": …, "pods": n or null} | at most so many pods |
    | POST namespaces {"hold": bool} | deleted namespaces stay Terminating |
    | POST tokens {"user": …, "groups": […] or "deny": […]} | a token for somebody |
    | POST pods/NAMESPACE/NAME/status | the pod's status is merged with this |
    | POST pods/NAMESPACE/NAME/disrupt {"as": …} | as in a real cluster, the pod is: |
    | | evicted (killed by a kubelet short of memory), preempted (by the scheduler), |
    | | api_evicted (as when a node is drained), node_lost (its node is gone, and the |
    | | pod garbage collector removes it), tainted (its node has a NoExecute taint) |
    | GET stats | how many requests were answered how |

    Args:
        api: the API server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._snapshot: State | None = None
        self._steps: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): lambda body: {
                "taken": api.faults.clear((body or {}).get("name"))
            },
            ("POST", "watches"): lambda body: {"watches": api.watches.misbehave(body["action"])},
            ("POST", "compact"): lambda _: api.store.compact(),
            ("POST", "tokens"): self._add_token,
            ("POST", "policy"): self._set_policy,
            ("POST", "namespaces"): self._hold_namespaces,
            ("POST", "quota"): self._set_quota,
            ("POST", "snapshot"): self._take_snapshot,
            ("POST", "restore"): self._restore,
            ("GET", "stats"): lambda _: dict(api.stats),
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request below `/_local/`."""
        try:
            if self._api.users.of(request).identity != ADMIN:
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
        if request.method == "POST" and parts[:1] == ["pods"] and parts[3:] == ["disrupt"]:
            return self._api.disruptions.disrupt(parts[1], parts[2], body["as"])
        raise Failure(404, f"no such endpoint: {request.method} {request.path}", "NotFound")

    def _add_fault(self, body: Any) -> None:
        self._api.faults.add(body)

    def _set_policy(self, body: Any) -> None:
        self._api.resources.install_policy(bool(body["create_before"]))

    def _hold_namespaces(self, body: Any) -> None:
        self._api.resources.hold_namespaces(bool(body["hold"]))

    def _set_quota(self, body: Any) -> None:
        """At most so many pods in a namespace; null for no limit."""
        resources, namespace = self._api.resources, body["namespace"]
        found = self._api.store.find("resourcequotas", namespace, _QUOTA)
        if found is not None:
            self._api.store.remove("resourcequotas", found)
        if body["pods"] is not None:
            hard = {"pods": str(int(body["pods"]))}
            content = {"metadata": {"name": _QUOTA}, "spec": {"hard": hard}}
            resources.create("resourcequotas", namespace, content)

    def _take_snapshot(self, _body: Any) -> dict[str, int]:
        self._snapshot = self._api.store.snapshot()
        return {"resourceVersion": self._snapshot.version}

    def _restore(self, body: Any) -> dict[str, Any]:
        if self._snapshot is None:
            raise Failure(400, "there is no snapshot: POST /_local/snapshot first")
        if (body or {}).get("keep_pods") and (
            lost := self._api.store.created_since(self._snapshot)
        ):
            return {"would_lose": lost}
        self._api.watches.misbehave("drop")
        self._api.store.restore(self._snapshot)
        return {"resourceVersion": self._snapshot.version}

    def _add_token(self, body: Any) -> dict[str, str]:
        store, name = self._api.store, body["user"]
        if "deny" in body:
            return {"token": self._api.users.add(DeniedUser(store, name, body["deny"]))}
        groups = frozenset((*body.get("groups", ()), AUTHENTICATED))
        return {"token": self._api.users.add(User(store, Identity(name, groups)))}

    def _set_pod_status(self, namespace: str, name: str, body: Any) -> None:
        self._api.resources.patch(
            "pods",
            namespace,
            name,
            "application/merge-patch+json",
            {"status": body},
            subresource="status",
        )
