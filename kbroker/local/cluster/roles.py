"""What users may do: roles, cluster roles and their bindings.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kbroker.local.cluster.discovery import GROUPS_OF
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.store import Object, Store

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
ACCOUNTS = "system:serviceaccounts"
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is.

    Attributes:
        name: such as `system:serviceaccount:jobs:kbroker-launcher`.
        groups: that he is a member of.
    """

    name: str
    groups: frozenset[str]

    @classmethod
    def account(cls, namespace: str, name: str) -> Identity:
        """A service account."""
        groups = (ACCOUNTS, f"{ACCOUNTS}:{namespace}", AUTHENTICATED)
        return cls(f"system:serviceaccount:{namespace}:{name}", frozenset(groups))


def allows(store: Store, who: Identity, call: Call) -> bool:
    """Whether somebody may do something.

    Args:
        store: holds roles and bindings.
        who: he.
        call: what he wants.
    """
    if MASTERS in who.groups:
        return True
    return any(grants(rule, call) for rule in rules_of(store, who, call.namespace))


def grants(rule: Mapping[str, Any], call: Call) -> bool:
    """Whether one rule of a role allows a call."""
    names = rule.get("resourceNames") or []
    resources = rule.get("resources") or ()
    of_any = f"*/{call.subresource}" in resources if call.subresource else False
    return (
        _has(rule.get("verbs"), call.verb)
        and _has(rule.get("apiGroups"), GROUPS_OF.get(call.resource, ""))
        and (of_any or _has(resources, call.full_resource))
        and (not names or call.name in names)
    )


def rules_of(store: Store, who: Identity, namespace: str) -> Iterator[Mapping[str, Any]]:
    """The rules that apply to somebody in a namespace, or to the whole cluster for ""."""
    for binding in store.all("clusterrolebindings"):
        if _binds(binding.object, who, ""):
            yield from _role(store, binding.object, "")
    if not namespace:
        return
    for binding in store.all("rolebindings", namespace):
        if _binds(binding.object, who, namespace):
            yield from _role(store, binding.object, namespace)


def _role(store: Store, binding: Object, namespace: str) -> Collection[Mapping[str, Any]]:
    reference = binding.get("roleRef") or {}
    of_cluster = reference.get("kind") == "ClusterRole"
    resource, where = ("clusterroles", "") if of_cluster else ("roles", namespace)
    role = store.find(resource, where, reference.get("name", ""))
    return () if role is None else role.object.get("rules") or ()


def _binds(binding: Object, who: Identity, namespace: str) -> bool:
    return any(_is(subject, who, namespace) for subject in binding.get("subjects") or ())


def _is(subject: Mapping[str, Any], who: Identity, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "Group":
        return name in who.groups
    if kind == "ServiceAccount":
        # Without a namespace it is the binding's own.
        home = subject.get("namespace") or namespace
        return who.name == Identity.account(home, name).name
    return kind == "User" and name == who.name


def _has(given: Any, wanted: str) -> bool:
    return _ALL in (given or ()) or wanted in (given or ())
