"""SelfSubjectAccessReview: whether its sender may do something."""

from __future__ import annotations

import orjson
from aiohttp import web

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import Call, answer, read_body
from kbroker.local.cluster.users import User

PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def review(request: web.Request, user: User) -> web.Response:
    """Answer a review.

    Raises:
        Failure: 400, it cannot be read.
    """
    body = await read_body(request)
    spec = body.get("spec") if isinstance(body, dict) else None
    asked = spec.get("resourceAttributes") if isinstance(spec, dict) else None
    if not isinstance(asked, dict):
        raise Failure(400, "a review needs spec.resourceAttributes")
    verb, resource, namespace, subresource = (
        str(asked.get(name) or "") for name in ("verb", "resource", "namespace", "subresource")
    )
    call = Call(verb, resource, namespace, str(asked.get("name") or ""), subresource, {})
    content = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"resourceAttributes": asked},
        "status": {"allowed": not user.denied(call)},
    }
    return answer(orjson.dumps(content), 201)
