"""The environment of a container's process: fixed values, references, secrets, config maps."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path

from kbroker.local.cluster import downward
from kbroker.local.cluster.store import Object

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")

# Finds "secrets" or "configmaps" of the pod's namespace by name.
Find = Callable[[str, str], Object | None]


class NotStarted(Exception):  # noqa: N818 - a state, not an error of ours
    """The container cannot be created.

    Args:
        reason: as a kubelet names it.
        message: in words.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def environment(spec: Object, pod: Object, folder: Path, find: Find) -> dict[str, str]:
    """The environment of a container's process: nothing of the server's but PATH and LANG.

    Raises:
        NotStarted: a variable's source is not there or not supported.
    """
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOSTNAME": pod["metadata"]["name"],
    }
    for source in spec.get("envFrom") or []:
        env.update(_imported(source, find))
    for variable in spec.get("env") or []:
        source = variable.get("valueFrom")
        if source is None:
            env[variable["name"]] = expanded(variable.get("value") or "", env)
            continue
        value = _referenced(source, spec, pod, find)
        if value is not None:
            env[variable["name"]] = value
    return env


def expanded(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` replaced by the variable's value, `$$` by `$`; unknown names stay.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return _REFERENCE.sub(value, text) if "$" in text else text


def _imported(source: Object, find: Find) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
        if field in source:
            values = _values(resource, source[field], find)
            return {prefix + name: value for name, value in (values or {}).items()}
    return {}


def _referenced(source: Object, spec: Object, pod: Object, find: Find) -> str | None:
    """The value; None for an optional one that is not there."""
    if source.get("fieldRef"):
        path = source["fieldRef"].get("fieldPath", "")
        return _there(downward.field(path, pod), f"fieldPath {path!r}")
    if source.get("resourceFieldRef"):
        reference = source["resourceFieldRef"]
        value = downward.resource(reference, pod, spec)
        return _there(value, f"resource {reference.get('resource')!r}")
    for field, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
        if field not in source:
            continue
        reference = source[field]
        values = _values(resource, reference, find)
        value = (values or {}).get(reference["key"])
        if value is None and not reference.get("optional"):
            kind = _KINDS[resource].capitalize() if resource == "secrets" else "ConfigMap"
            where = f"{pod['metadata']['namespace']}/{reference['name']}"
            raise NotStarted(
                "CreateContainerConfigError",
                f"couldn't find key {reference['key']} in {kind} {where}",
            )
        return value
    kind = next(iter(source), "valueFrom")
    raise NotStarted("CreateContainerConfigError", f"{kind} is not supported by the local cluster")


_KINDS = {"secrets": "secret", "configmaps": "configmap"}


def _values(resource: str, reference: Object, find: Find) -> dict[str, str] | None:
    found = find(resource, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        message = f'{_KINDS[resource]} "{reference["name"]}" not found'
        raise NotStarted("CreateContainerConfigError", message)
    data = found.get("data") or {}
    if resource == "configmaps":
        return dict(data)
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def _there(value: str | None, what: str) -> str:
    if value is None:
        raise NotStarted("CreateContainerConfigError", f"{what} has no value")
    return value
