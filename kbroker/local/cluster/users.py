"""Who may do what: bearer tokens, impersonation, and roles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from kbroker.local.cluster.discovery import GROUPS_OF
from kbroker.local.cluster.failure import Failure, forbidden
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.roles import AUTHENTICATED, MASTERS, Identity, allows
from kbroker.local.cluster.store import Store

ADMIN = Identity("kubernetes-admin", frozenset((MASTERS, AUTHENTICATED)))


class User:
    """Somebody who may do what roles and bindings give him.

    Args:
        store: holds them.
        identity: who he is.
    """

    def __init__(self, store: Store, identity: Identity) -> None:
        self._store = store
        self.identity = identity

    def denied(self, call: Call) -> bool:
        """Whether no role lets him."""
        return not allows(self._store, self.identity, call)

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
            f'{call.resource}{name} is forbidden: User "{self.identity.name}" cannot {call.verb} '
            f'resource "{call.full_resource}" in API group '
            f'"{GROUPS_OF.get(call.resource, "")}"{where}',
            name=call.name or None,
            kind=call.resource,
        )


class DeniedUser(User):
    """May do all but what a test denies him.

    Args:
        store: as for every user.
        name: as failures name him.
        deny: rules of "verb" and "resource"; what is left out stands for all.
    """

    def __init__(self, store: Store, name: str, deny: Sequence[dict[str, str]]) -> None:
        super().__init__(store, Identity(name, frozenset((AUTHENTICATED,))))
        self._deny = deny

    def denied(self, call: Call) -> bool:
        """Whether one of the rules names this."""
        return any(
            rule.get("verb", call.verb) == call.verb
            and rule.get("resource", call.full_resource) == call.full_resource
            for rule in self._deny
        )


class ServiceAccount(User):
    """A service account by one of its tokens.

    Args:
        store: holds the account.
        namespace: of the account.
        account: its name.
        seconds: how long the token is good.
    """

    def __init__(self, store: Store, namespace: str, account: str, seconds: float) -> None:
        super().__init__(store, Identity.account(namespace, account))
        self._ends = time.monotonic() + seconds
        self._where = (namespace, account)
        self._uid = store.get("serviceaccounts", *self._where).object["metadata"]["uid"]

    def good(self) -> bool:
        """Whether the token has not expired, and this very account still exists."""
        found = self._store.find("serviceaccounts", *self._where)
        same = found is not None and found.object["metadata"]["uid"] == self._uid
        return same and time.monotonic() < self._ends


@dataclass(frozen=True, slots=True)
class _Impersonated:
    name: str
    groups: tuple[str, ...]


class Users:
    """Everybody who has a token.

    Args:
        store: holds roles and bindings.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_token: dict[str, User] = {}

    def add(self, user: User) -> str:
        """Let somebody in; his token."""
        token = secrets.token_urlsafe(32)
        self._by_token = {t: u for t, u in self._by_token.items() if u.good()}
        self._by_token[token] = user
        return token

    def of(self, request: web.Request) -> User:
        """Whose request it is, or is said to be.

        Raises:
            Failure: 401; 403, he may not speak for others.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self._by_token.get(token) if scheme.lower() == "bearer" else None
        if user is None or not user.good():
            raise Failure(401, "Unauthorized")
        meant = _impersonated(request)
        return user if meant is None else self._as(user, meant)

    def _as(self, user: User, meant: _Impersonated) -> User:
        if MASTERS not in user.identity.groups:
            why = f'User "{user.identity.name}" cannot impersonate resource "users"'
            raise forbidden("users", meant.name, why)
        parts = meant.name.split(":")
        if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4:
            identity = Identity.account(parts[2], parts[3])
        else:
            identity = Identity(meant.name, frozenset((*meant.groups, AUTHENTICATED)))
        return User(self._store, identity)


def _impersonated(request: web.Request) -> _Impersonated | None:
    """https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/."""
    name = request.headers.get("Impersonate-User")
    if name is None:
        return None
    return _Impersonated(name, tuple(request.headers.getall("Impersonate-Group", ())))
