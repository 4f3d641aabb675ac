"""Who may do what: bearer tokens, and verbs that are denied."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from aiohttp import web

from kbroker.local.cluster.discovery import GROUPS_OF
from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.roles import account_may
from kbroker.local.cluster.store import Store

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

    def good(self) -> bool:
        """Whether he still exists."""
        return True

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
            f'"{call.full_resource}" in API group "{GROUPS_OF.get(call.resource, "")}"{where}',
            name=call.name or None,
            kind=call.resource,
        )


class ServiceAccount(User):
    """May do what roles and bindings give him.

    Args:
        store: holds them, and the account.
        namespace: of the account.
        account: its name.
    """

    def __init__(self, store: Store, namespace: str, account: str) -> None:
        super().__init__(f"system:serviceaccount:{namespace}:{account}")
        self._store = store
        self._where = (namespace, account)

    def denied(self, call: Call) -> bool:
        """Whether no role lets him."""
        return not account_may(self._store, *self._where, call)

    def good(self) -> bool:
        """Whether the account still exists."""
        return self._store.find("serviceaccounts", *self._where) is not None


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
        if user is None or not user.good():
            raise Failure(401, "Unauthorized")
        return user
