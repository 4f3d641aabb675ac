"""What service accounts may do: Roles and RoleBindings of their namespace.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kbroker.local.cluster.discovery import GROUPS_OF
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.store import Store

_ALL = "*"


def grants(rule: Mapping[str, Any], call: Call) -> bool:
    """Whether one rule of a role allows a call."""
    names = rule.get("resourceNames") or []
    return (
        _has(rule.get("verbs"), call.verb)
        and _has(rule.get("apiGroups"), GROUPS_OF.get(call.resource, ""))
        and _has(rule.get("resources"), call.full_resource)
        and (not names or call.name in names)
    )


def _has(given: Any, wanted: str) -> bool:
    return _ALL in (given or ()) or wanted in (given or ())


def account_may(store: Store, namespace: str, account: str, call: Call) -> bool:
    """Whether a service account may do something.

    Args:
        store: holds roles and bindings.
        namespace: of the account.
        account: its name.
        call: what it wants.
    """
    return any(grants(rule, call) for rule in _rules(store, namespace, account, call.namespace))


def _rules(store: Store, namespace: str, account: str, where: str) -> Iterator[Mapping[str, Any]]:
    if not where:
        return  # roles end at their namespace
    for binding in store.all("rolebindings", where):
        for subject in binding.object.get("subjects") or []:
            home = subject.get("namespace") or where
            if (subject.get("kind"), home, subject.get("name")) != (
                "ServiceAccount",
                namespace,
                account,
            ):
                continue
            role = store.find("roles", where, binding.object["roleRef"]["name"])
            if role is not None:
                yield from role.object.get("rules") or []
