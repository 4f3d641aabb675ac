"""Who may do what: bearer tokens, and verbs that are denied."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from aiohttp import web

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import Call

ADMIN = "kubernetes-admin"


@dataclass
class User:
    """Who a token belongs to, and what is denied to him.

    Attributes:
        name: as failures name him.
        deny: rules of "verb" and "resource"; what is left out stands for all.
    """

    name: str
    deny: list[dict[str, str]] = field(default_factory=list)

    def denied(self, call: Call) -> bool:
        """Whether no role would let him."""
        return any(
            rule.get("verb", call.verb) == call.verb
            and rule.get("resource", call.full_resource) == call.full_resource
            for rule in self.deny
        )

    def check(self, call: Call) -> None:
        """He may do this.

        Raises:
            Failure: 403.
        """
        if not self.denied(call):
            return
        name = f' "{call.name}"' if call.name else ""
        where = (
            f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
        )
        raise Failure(
            403,
            f'{call.resource}{name} is forbidden: User "{self.name}" cannot {call.verb} resource '
            f'"{call.full_resource}" in API group ""{where}',
            name=call.name or None,
            kind=call.resource,
        )


class Users:
    """Everybody who has a token."""

    def __init__(self) -> None:
        self._by_token: dict[str, User] = {}

    def add(self, user: User) -> str:
        """Let somebody in; his token."""
        token = secrets.token_urlsafe(32)
        self._by_token[token] = user
        return token

    def of(self, request: web.Request) -> User:
        """Whose request it is.

        Raises:
            Failure: 401.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self._by_token.get(token) if scheme.lower() == "bearer" else None
        if user is None:
            raise Failure(401, "Unauthorized")
        return user
