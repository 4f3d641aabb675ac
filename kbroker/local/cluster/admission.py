"""What is checked before an object is created or changed: validation, namespace."""

from __future__ import annotations

import re

from kbroker.local.cluster.failure import forbidden, invalid, not_found
from kbroker.local.cluster.store import Object, Store

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_QUALIFIED = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
)
_ANNOTATIONS_MAX = 256 * 1024
_POLICIES = ("Always", "OnFailure", "Never")


def check_metadata(kind: str, content: Object) -> None:
    """Name, labels and annotations are valid.

    Raises:
        Failure: 422 with all causes.
    """
    metadata = content["metadata"]
    name = metadata.get("name") or ""
    causes: list[tuple[str, str]] = []
    if not name:
        causes.append(("metadata.name", "Required value: name or generateName is required"))
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        causes.append(
            (
                "metadata.name",
                f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower '
                "case alphanumeric characters, '-' or '.', and must start and end with an "
                "alphanumeric character",
            )
        )
    for key, value in (metadata.get("labels") or {}).items():
        if not _is_qualified(key):
            causes.append(("metadata.labels", f'Invalid value: "{key}": not a qualified name'))
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            causes.append(("metadata.labels", f'Invalid value: "{value}": not a label value'))
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        if not _is_qualified(key):
            causes.append(("metadata.annotations", f'Invalid value: "{key}": not qualified'))
        size += len(key) + len(str(value))
    if size > _ANNOTATIONS_MAX:
        causes.append(("metadata.annotations", "Too long: must have at most 262144 bytes"))
    for position, owner in enumerate(metadata.get("ownerReferences") or []):
        place = f"metadata.ownerReferences[{position}]"
        missing = (each for each in ("apiVersion", "kind", "name", "uid") if not owner.get(each))
        causes += [(f"{place}.{each}", "Required value: must not be empty") for each in missing]
    if causes:
        raise invalid(kind, name, causes)


def _is_qualified(key: str) -> bool:
    return len(key.rpartition("/")[2]) <= 63 and _QUALIFIED.fullmatch(key) is not None


def check_pod(content: Object) -> None:
    """A pod's specification is one that a node can run.

    Raises:
        Failure: 422 with all causes.
    """
    check_metadata("Pod", content)
    spec = content.get("spec") or {}
    name = content["metadata"]["name"]
    if not spec.get("containers"):
        raise invalid("Pod", name, [("spec.containers", "Required value")])
    causes: list[tuple[str, str]] = []
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for position, container in enumerate(spec.get(field) or []):
            causes += _container_causes(f"spec.{field}[{position}]", container, seen)
    policy = spec.get("restartPolicy", "Always")
    if policy not in _POLICIES:
        supported = ", ".join(f'"{known}"' for known in _POLICIES)
        problem = f'Unsupported value: "{policy}": supported values: {supported}'
        causes.append(("spec.restartPolicy", problem))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not (isinstance(deadline, int) and 1 <= deadline < 2**31):
        problem = f"Invalid value: {deadline}: must be between 1 and 2147483647, inclusive"
        causes.append(("spec.activeDeadlineSeconds", problem))
    if causes:
        raise invalid("Pod", name, causes)


def _container_causes(field: str, container: Object, seen: set[str]) -> list[tuple[str, str]]:
    causes = []
    name = container.get("name") or ""
    if not name:
        causes.append((f"{field}.name", "Required value"))
    elif len(name) > 63 or not _LABEL.fullmatch(name):
        causes.append((f"{field}.name", f'Invalid value: "{name}": not an RFC 1123 label'))
    elif name in seen:
        causes.append((f"{field}.name", f'Duplicate value: "{name}"'))
    seen.add(name)
    if not container.get("image"):
        causes.append((f"{field}.image", "Required value"))
    for position, variable in enumerate(container.get("env") or []):
        if not variable.get("name"):
            causes.append((f"{field}.env[{position}].name", "Required value"))
    return causes


def check_change(before: Object, after: Object) -> None:
    """Only what may change of a pod's specification has changed.

    Raises:
        Failure: 422.
    """
    old, new = dict(before["spec"]), dict(after["spec"])
    name = after["metadata"]["name"]
    was, becomes = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if was != becomes:
        if becomes is None:
            problem = "Invalid value: null: must not update from a positive integer to nil value"
            raise invalid("Pod", name, [("spec.activeDeadlineSeconds", problem)])
        if not isinstance(becomes, int) or becomes < 1:
            problem = f"Invalid value: {becomes}: must be between 1 and 2147483647, inclusive"
            raise invalid("Pod", name, [("spec.activeDeadlineSeconds", problem)])
        if was is not None and becomes > was:
            problem = f"Invalid value: {becomes}: must be less than or equal to previous value"
            raise invalid("Pod", name, [("spec.activeDeadlineSeconds", problem)])
    old.pop("activeDeadlineSeconds", None)
    new.pop("activeDeadlineSeconds", None)
    had, has = old.pop("tolerations", None) or [], new.pop("tolerations", None) or []
    added = all(toleration in has for toleration in had)
    for containers in ("containers", "initContainers"):
        for spec in (old, new):
            spec[containers] = [{**c, "image": ""} for c in spec.get(containers) or []]
    if old != new or not added:
        problem = (
            "Forbidden: pod updates may not change fields other than "
            "`spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
            "tolerations)"
        )
        raise invalid("Pod", name, [("spec", problem)])


def check_namespace(store: Store, resource: str, namespace: str, name: str) -> None:
    """The namespace exists and takes new objects.

    Raises:
        Failure: 404, or 403 while it is terminating.
    """
    found = store.find("namespaces", "", namespace)
    if found is None:
        raise not_found("namespaces", namespace)
    if found.object.get("status", {}).get("phase") == "Terminating":
        why = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        raise forbidden(resource, name, why)
