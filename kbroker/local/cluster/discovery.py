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
# resource → API group, of those that are not of the core group; all have the version v1
GROUPS_OF = {
    "roles": _RBAC,
    "rolebindings": _RBAC,
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
        for group in ("authorization.k8s.io", _RBAC, _ADMISSION)
    ],
}
REVIEW_RESOURCES: dict[str, Any] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "authorization.k8s.io/v1",
    "resources": [
        {
            "name": "selfsubjectaccessreviews",
            "singularName": "selfsubjectaccessreview",
            "namespaced": False,
            "kind": "SelfSubjectAccessReview",
            "verbs": ["create"],
        }
    ],
}

OPENAPI: dict[str, Any] = {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=1"}}}


def openapi_core() -> dict[str, Any]:
    """Just enough of core/v1's OpenAPI that kubectl leaves validation to the server."""
    paths = {}
    for name, (kind, _, _, namespaced) in RESOURCES.items():
        if name in GROUPS_OF:
            continue
        where = "namespaces/{namespace}/" if namespaced else ""
        operation = {
            "x-kubernetes-group-version-kind": {"group": "", "version": "v1", "kind": kind},
            "parameters": [{"name": "fieldValidation", "in": "query"}],
        }
        paths[f"/api/v1/{where}{name}"] = {"post": operation}
        paths[f"/api/v1/{where}{name}/{{name}}"] = {"patch": operation}
    info = {"title": "kbroker local cluster", "version": "v1"}
    return {"openapi": "3.0.0", "info": info, "paths": paths}


def core_resources() -> dict[str, Any]:
    """The resources of core/v1."""
    listed = _resources_of("")
    for subresource, verbs in (("log", ["get"]), ("status", ["get", "patch", "update"])):
        listed.append(
            {
                "name": f"pods/{subresource}",
                "singularName": "",
                "namespaced": True,
                "kind": "Pod",
                "verbs": verbs,
            }
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
    if path == "/openapi/v3/api/v1":
        return openapi_core()
    return _DOCUMENTS.get(path)


_DOCUMENTS: dict[str, dict[str, Any]] = {
    "/version": VERSION,
    "/api": CORE_VERSIONS,
    "/apis": GROUPS,
    "/apis/authorization.k8s.io/v1": REVIEW_RESOURCES,
    f"/apis/{_RBAC}/v1": _group_resources(_RBAC),
    f"/apis/{_ADMISSION}/v1": _group_resources(_ADMISSION),
    "/openapi/v3": OPENAPI,
}
