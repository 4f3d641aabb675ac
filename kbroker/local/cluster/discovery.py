"""What the server says of itself, so that kubectl finds its way."""

from __future__ import annotations

from typing import Any

VERSION: dict[str, Any] = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0+kbroker",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "local/process",
}

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]

# resource → (kind, singular, short names, namespaced)
RESOURCES: dict[str, tuple[str, str, list[str], bool]] = {
    "pods": ("Pod", "pod", ["po"], True),
    "namespaces": ("Namespace", "namespace", ["ns"], False),
    "nodes": ("Node", "node", ["no"], False),
    "events": ("Event", "event", ["ev"], True),
    "secrets": ("Secret", "secret", [], True),
    "configmaps": ("ConfigMap", "configmap", ["cm"], True),
    "serviceaccounts": ("ServiceAccount", "serviceaccount", ["sa"], True),
    "resourcequotas": ("ResourceQuota", "resourcequota", ["quota"], True),
    "roles": ("Role", "role", [], True),
    "rolebindings": ("RoleBinding", "rolebinding", [], True),
    "clusterroles": ("ClusterRole", "clusterrole", [], False),
    "clusterrolebindings": ("ClusterRoleBinding", "clusterrolebinding", [], False),
    "validatingadmissionpolicies": (
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicy",
        [],
        False,
    ),
    "validatingadmissionpolicybindings": (
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybinding",
        [],
        False,
    ),
}
_RBAC, _ADMISSION = "rbac.authorization.k8s.io", "admissionregistration.k8s.io"
_AUTHENTICATION, _AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
_SUBRESOURCES = (
    ("pods/log", "Pod", ["get"]),
    ("pods/status", "Pod", ["get", "patch", "update"]),
    ("pods/binding", "Binding", ["create"]),
    ("pods/eviction", "Eviction", ["create"]),
    ("resourcequotas/status", "ResourceQuota", ["get", "patch", "update"]),
    ("serviceaccounts/token", "TokenRequest", ["create"]),
)
# kind → API group, of what the subresources of core/v1 take from other groups
_FOREIGN = {"TokenRequest": _AUTHENTICATION, "Eviction": "policy"}
# resource → API group, of those that are not of the core group; all have the version v1
GROUPS_OF = {
    "roles": _RBAC,
    "rolebindings": _RBAC,
    "clusterroles": _RBAC,
    "clusterrolebindings": _RBAC,
    "validatingadmissionpolicies": _ADMISSION,
    "validatingadmissionpolicybindings": _ADMISSION,
}

CORE_VERSIONS: dict[str, Any] = {
    "kind": "APIVersions",
    "versions": ["v1"],
    "serverAddressByClientCIDRs": [],
}
GROUPS: dict[str, Any] = {
    "kind": "APIGroupList",
    "apiVersion": "v1",
    "groups": [
        {
            "name": group,
            "versions": [{"groupVersion": f"{group}/v1", "version": "v1"}],
            "preferredVersion": {"groupVersion": f"{group}/v1", "version": "v1"},
        }
        for group in (_AUTHENTICATION, _AUTHORIZATION, _RBAC, _ADMISSION)
    ],
}


def _reviews(group: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    """What can only be asked: it is created, and kept nowhere."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/v1",
        "resources": [
            {
                "name": f"{kind.lower()}s",
                "singularName": kind.lower(),
                "namespaced": False,
                "kind": kind,
                "verbs": ["create"],
            }
            for kind in kinds
        ],
    }


_OPENAPI = "/openapi/v3/"
_BASES = {"api/v1": "", **{f"apis/{group}/v1": group for group in (_RBAC, _ADMISSION)}}
OPENAPI: dict[str, Any] = {
    "paths": {base: {"serverRelativeURL": f"{_OPENAPI}{base}?hash=1"} for base in _BASES}
}


def openapi(base: str) -> dict[str, Any]:
    """Just enough of a group's OpenAPI that kubectl leaves validation to the server."""
    paths = {}
    for name, (kind, _, _, namespaced) in RESOURCES.items():
        if GROUPS_OF.get(name, "") != _BASES[base]:
            continue
        where = "namespaces/{namespace}/" if namespaced else ""
        version = {"group": _BASES[base], "version": "v1", "kind": kind}
        operation = {
            "x-kubernetes-group-version-kind": version,
            "parameters": [{"name": "fieldValidation", "in": "query"}],
        }
        paths[f"/{base}/{where}{name}"] = {"post": operation}
        paths[f"/{base}/{where}{name}/{{name}}"] = {"patch": operation}
    info = {"title": "kbroker local cluster", "version": "v1"}
    return {"openapi": "3.0.0", "info": info, "paths": paths}


def core_resources() -> dict[str, Any]:
    """The resources of core/v1."""
    listed = _resources_of("")
    for name, kind, verbs in _SUBRESOURCES:
        listed.append(
            {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
            | ({"group": _FOREIGN[kind], "version": "v1"} if kind in _FOREIGN else {})
        )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "v1",
        "resources": listed,
    }


def _resources_of(group: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "singularName": singular,
            "namespaced": namespaced,
            "kind": kind,
            "verbs": _VERBS,
            "shortNames": short,
            **({"categories": ["all"]} if name == "pods" else {}),
        }
        for name, (kind, singular, short, namespaced) in RESOURCES.items()
        if GROUPS_OF.get(name, "") == group
    ]


def _group_resources(group: str) -> dict[str, Any]:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/v1",
        "resources": _resources_of(group),
    }


def document(path: str) -> dict[str, Any] | None:
    """What stands at a path that is no resource."""
    if path == "/api/v1":
        return core_resources()
    if path.removeprefix(_OPENAPI) in _BASES:
        return openapi(path.removeprefix(_OPENAPI))
    return _DOCUMENTS.get(path)


_DOCUMENTS: dict[str, dict[str, Any]] = {
    "/version": VERSION,
    "/api": CORE_VERSIONS,
    "/apis": GROUPS,
    f"/apis/{_AUTHENTICATION}/v1": _reviews(_AUTHENTICATION, ("SelfSubjectReview",)),
    f"/apis/{_AUTHORIZATION}/v1": _reviews(
        _AUTHORIZATION,
        ("SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"),
    ),
    f"/apis/{_RBAC}/v1": _group_resources(_RBAC),
    f"/apis/{_ADMISSION}/v1": _group_resources(_ADMISSION),
    "/openapi/v3": OPENAPI,
}
