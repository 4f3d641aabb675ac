"""What roles and bindings give: rules by tables, identities against a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kbroker.local.cluster.admission_policies import shipped
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.roles import MASTERS, Identity, allows, grants
from kbroker.local.cluster.store import Store

ROOT = Path(__file__).resolve().parents[3]
ROBOT = Identity.account("jobs", "robot")
JANE = Identity("jane", frozenset(("team", "system:authenticated")))


def call(
    verb: str = "get",
    resource: str = "pods",
    namespace: str = "jobs",
    name: str = "",
    sub: str = "",
) -> Call:
    return Call(verb, resource, namespace, name, sub, {})


def rule(**fields: Any) -> dict[str, Any]:
    return {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], **fields}


@pytest.mark.parametrize(
    ("given", "asked", "allowed"),
    [
        (rule(), call(), True),
        (rule(), call("list"), False),
        (rule(verbs=["*"]), call("list"), True),
        (rule(), call(resource="secrets"), False),
        (rule(resources=["*"]), call(resource="secrets"), True),
        (rule(apiGroups=["apps"]), call(), False),
        (rule(apiGroups=["*"]), call(), True),
        (rule(), call(resource="roles"), False),
        (
            rule(apiGroups=["rbac.authorization.k8s.io"], resources=["roles"]),
            call(resource="roles"),
            True,
        ),
        (rule(), call(sub="log"), False),  # a subresource is a resource of its own
        (rule(resources=["pods/log"]), call(sub="log"), True),
        (rule(resources=["pods/log"]), call(), False),
        (rule(resources=["*/log"]), call(sub="log"), True),
        (rule(resources=["*/log"]), call(sub="status"), False),
        (rule(resourceNames=["a"]), call(name="a"), True),
        (rule(resourceNames=["a"]), call(name="b"), False),
        (rule(resourceNames=["a"], verbs=["create"]), call("create"), False),  # no name yet
        ({}, call(), False),
    ],
)
def test_a_rule(given: dict[str, Any], asked: Call, allowed: bool) -> None:
    assert grants(given, asked) is allowed


def store_with(kind: str, namespace: str, role_kind: str, *subjects: dict[str, str]) -> Store:
    store = Store(100)

    def put(resource: str, where: str, name: str, **content: Any) -> None:
        metadata = {"name": name, **({"namespace": where} if where else {})}
        store.create(resource, {"metadata": metadata, **content})

    put("roles", "jobs", "reader", rules=[rule()])
    put("clusterroles", "", "reader", rules=[rule(verbs=["list"])])
    reference = {"kind": role_kind, "name": "reader"}
    put(kind, namespace, "binding", roleRef=reference, subjects=list(subjects))
    return store


ACCOUNT = {"kind": "ServiceAccount", "name": "robot", "namespace": "jobs"}


@pytest.mark.parametrize(
    ("kind", "namespace", "role", "subject", "who", "asked", "allowed"),
    [
        ("rolebindings", "jobs", "Role", ACCOUNT, ROBOT, call(), True),
        ("rolebindings", "jobs", "Role", ACCOUNT, ROBOT, call(namespace="other"), False),
        ("rolebindings", "jobs", "Role", ACCOUNT, ROBOT, call(namespace=""), False),
        ("rolebindings", "jobs", "Role", ACCOUNT, JANE, call(), False),
        ("rolebindings", "jobs", "Role", {**ACCOUNT, "namespace": "x"}, ROBOT, call(), False),
        # Without a namespace the binding's own is meant.
        (
            "rolebindings",
            "jobs",
            "Role",
            {"kind": "ServiceAccount", "name": "robot"},
            ROBOT,
            call(),
            True,
        ),
        ("rolebindings", "jobs", "ClusterRole", ACCOUNT, ROBOT, call("list"), True),
        ("rolebindings", "jobs", "ClusterRole", ACCOUNT, ROBOT, call(), False),
        (
            "clusterrolebindings",
            "",
            "ClusterRole",
            ACCOUNT,
            ROBOT,
            call("list", namespace="o"),
            True,
        ),
        (
            "clusterrolebindings",
            "",
            "ClusterRole",
            ACCOUNT,
            ROBOT,
            call("list", namespace=""),
            True,
        ),
        ("rolebindings", "jobs", "Role", {"kind": "User", "name": "jane"}, JANE, call(), True),
        ("rolebindings", "jobs", "Role", {"kind": "Group", "name": "team"}, JANE, call(), True),
        ("rolebindings", "jobs", "Role", {"kind": "Group", "name": "other"}, JANE, call(), False),
        (
            "rolebindings",
            "jobs",
            "Role",
            {"kind": "Group", "name": "system:serviceaccounts:jobs"},
            ROBOT,
            call(),
            True,
        ),
        (
            "rolebindings",
            "jobs",
            "Role",
            {"kind": "Group", "name": "system:authenticated"},
            ROBOT,
            call(),
            True,
        ),
    ],
)
def test_a_binding(
    kind: str,
    namespace: str,
    role: str,
    subject: dict[str, str],
    who: Identity,
    asked: Call,
    allowed: bool,
) -> None:
    assert allows(store_with(kind, namespace, role, subject), who, asked) is allowed


def test_a_binding_to_a_role_that_is_not_there_gives_nothing() -> None:
    store = store_with("rolebindings", "jobs", "Role", ACCOUNT)
    store.remove("roles", store.get("roles", "jobs", "reader"))
    assert not allows(store, ROBOT, call())


def test_masters_may_do_all() -> None:
    assert allows(Store(1), Identity("root", frozenset((MASTERS,))), call("delete", "nodes"))


def test_the_pre_installed_policy_is_the_shipped_one() -> None:
    path = ROOT / "config" / "kubernetes" / "create-before-policy.yaml"
    for document, (_, content) in zip(yaml.safe_load_all(path.read_text()), shipped(), strict=True):
        assert content["metadata"]["name"] == document["metadata"]["name"]
        assert content["spec"] == document["spec"]
