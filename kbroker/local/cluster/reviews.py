"""Questions about access: whether somebody may do something, what he may do, who he is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import Call, answer, read_body
from kbroker.local.cluster.roles import AUTHENTICATED, MASTERS, Identity, rules_of
from kbroker.local.cluster.store import Object, Store
from kbroker.local.cluster.users import User

_AUTHORIZATION, _AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
_EVERYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_Answer = tuple[Object, Object]


async def review(request: web.Request, store: Store, user: User) -> web.Response | None:
    """Answer a review; None when the request is none.

    Raises:
        Failure: 400, it cannot be read; 403, it asks about others.
    """
    known = _REVIEWS.get(request.path.rstrip("/")) if request.method == "POST" else None
    if known is None:
        return None
    group, kind, judge = known
    body = await read_body(request)
    spec = body.get("spec") if isinstance(body, dict) else None
    spec, status = judge(store, user, spec if isinstance(spec, dict) else {})
    content = {
        "kind": kind,
        "apiVersion": f"{group}/v1",
        "metadata": {},
        "spec": spec,
        "status": status,
    }
    return answer(orjson.dumps(content), 201)


def _may_i(_store: Store, user: User, spec: Object) -> _Answer:
    return spec, {"allowed": not user.denied(_call(spec))}


def _may_he(store: Store, user: User, spec: Object) -> _Answer:
    user.check(Call("create", "subjectaccessreviews", "", "", "", {}))
    groups = frozenset((*(spec.get("groups") or ()), AUTHENTICATED))
    he = User(store, Identity(str(spec.get("user") or ""), groups))
    return spec, {"allowed": not he.denied(_call(spec))}


def _what_may_i(store: Store, user: User, spec: Object) -> _Answer:
    rules = [*rules_of(store, user.identity, str(spec.get("namespace") or ""))]
    if MASTERS in user.identity.groups:
        rules.append(_EVERYTHING)
    shown = [{name: rule[name] for name in rule if name != "nonResourceURLs"} for rule in rules]
    return spec, {"resourceRules": shown, "nonResourceRules": [], "incomplete": False}


def _who_am_i(_store: Store, user: User, spec: Object) -> _Answer:
    who = user.identity
    return spec, {"userInfo": {"username": who.name, "groups": sorted(who.groups)}}


def _call(spec: Mapping[str, Any]) -> Call:
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        raise Failure(400, "a review needs spec.resourceAttributes")
    verb, resource, namespace, name, subresource = (
        str(asked.get(field) or "")
        for field in ("verb", "resource", "namespace", "name", "subresource")
    )
    return Call(verb, resource, namespace, name, subresource, {})


_Judge = Callable[[Store, User, Object], _Answer]
_KINDS: tuple[tuple[str, str, str, _Judge], ...] = (
    (_AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", _may_i),
    (_AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", _may_he),
    (_AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", _what_may_i),
    (_AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", _who_am_i),
)
_REVIEWS = {
    f"/apis/{group}/v1/{resource}": (group, kind, judge) for group, resource, kind, judge in _KINDS
}
