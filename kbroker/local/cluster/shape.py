"""Types of the fields that the local cluster reads; wrong ones are refused before anything else."""

from __future__ import annotations

from typing import Any

from kbroker.local.cluster.failure import Failure

_STRINGS = {"*": str}
_RESOURCE = {"containerName": str, "resource": str}
_VALUE_FROM = {
    "fieldRef": {"fieldPath": str},
    "resourceFieldRef": _RESOURCE,
    "secretKeyRef": {"name": str, "key": str, "optional": bool},
    "configMapKeyRef": {"name": str, "key": str, "optional": bool},
}
_SOURCE = {"name": str, "optional": bool}
_ITEMS = [{"key": str, "path": str, "mode": int}]
_CONFIG_MAP = {**_SOURCE, "items": _ITEMS, "defaultMode": int}
_DOWNWARD = {
    "defaultMode": int,
    "items": [
        {"path": str, "mode": int, "fieldRef": {"fieldPath": str}, "resourceFieldRef": _RESOURCE}
    ],
}
_TOKEN = {"audience": str, "expirationSeconds": int, "path": str}
_VOLUME = {
    "name": str,
    "emptyDir": {"medium": str},
    "hostPath": {"path": str, "type": str},
    "configMap": _CONFIG_MAP,
    "secret": {"secretName": str, "optional": bool, "items": _ITEMS, "defaultMode": int},
    "downwardAPI": _DOWNWARD,
    "projected": {
        "defaultMode": int,
        "sources": [
            {
                "configMap": _CONFIG_MAP,
                "secret": _CONFIG_MAP,
                "downwardAPI": _DOWNWARD,
                "serviceAccountToken": _TOKEN,
            }
        ],
    },
}
_PROBE = {
    "exec": {"command": [str]},
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
}
_CONTAINER = {
    "name": str,
    "image": str,
    "imagePullPolicy": str,
    "command": [str],
    "args": [str],
    "workingDir": str,
    "restartPolicy": str,
    "env": [{"name": str, "value": str, "valueFrom": _VALUE_FROM}],
    "envFrom": [{"prefix": str, "secretRef": _SOURCE, "configMapRef": _SOURCE}],
    "resources": {"requests": dict, "limits": dict},
    "volumeMounts": [
        {"name": str, "mountPath": str, "subPath": str, "subPathExpr": str, "readOnly": bool}
    ],
    "terminationMessagePolicy": str,
    "startupProbe": _PROBE,
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "lifecycle": {"preStop": {"exec": {"command": [str]}}},
}
_METADATA = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "uid": str,
    "resourceVersion": str,
    "labels": _STRINGS,
    "annotations": _STRINGS,
    "ownerReferences": [{"apiVersion": str, "kind": str, "name": str, "uid": str}],
}
_SPECIFIC: dict[str, dict[str, Any]] = {
    "pods": {
        "spec": {
            "restartPolicy": str,
            "schedulerName": str,
            "nodeName": str,
            "nodeSelector": _STRINGS,
            "tolerations": [dict],
            "activeDeadlineSeconds": int,
            "terminationGracePeriodSeconds": int,
            "containers": [_CONTAINER],
            "initContainers": [_CONTAINER],
            "volumes": [_VOLUME],
        },
        "status": {
            "phase": str,
            "reason": str,
            "conditions": [{"type": str, "status": str}],
            "containerStatuses": [{"name": str, "state": dict}],
            "initContainerStatuses": [{"name": str, "state": dict}],
        },
    },
    "secrets": {"data": _STRINGS, "stringData": _STRINGS},
    "configmaps": {"data": _STRINGS, "binaryData": _STRINGS},
    "resourcequotas": {"spec": {"hard": dict}},
    "events": {"involvedObject": dict},
}


def check_shape(resource: str, kind: str, content: dict[str, Any]) -> None:
    """Every field has the right type; null counts as left out.

    Raises:
        Failure: 400, naming the first field that has not.
    """
    shape = {"metadata": _METADATA, **_SPECIFIC.get(resource, {})}
    wrong = _wrong(shape, content, "")
    if wrong:
        raise Failure(400, f'{kind} in version "v1" cannot be handled as a {kind}: {wrong}')


def _wrong(shape: Any, value: Any, path: str) -> str:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{path or 'the body'} is not an object"
        inner = ((name, shape.get(name, shape.get("*"))) for name in value)
        steps = [(s, value[name], f"{path}.{name}".lstrip(".")) for name, s in inner if s]
        # A map of strings has no nulls; a field that is null is left out.
        steps = [step for step in steps if step[1] is not None]
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path} is not a list"
        steps = [(shape[0], item, f"{path}[{n}]") for n, item in enumerate(value)]
    elif isinstance(value, shape) and not (shape is int and isinstance(value, bool)):
        return ""
    else:
        return f"{path} is not a {_WORDS[shape]}"
    return next((said for step in steps if (said := _wrong(*step))), "")


_WORDS = {str: "string", int: "whole number", bool: "boolean", dict: "object"}
