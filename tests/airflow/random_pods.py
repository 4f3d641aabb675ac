"""Templates and overrides of random fields, many of them empty, false or zero."""

from __future__ import annotations

import copy
import random
from typing import Any

_CONTAINER: dict[str, list[Any]] = {
    "image": ["one", "two", ""],
    "imagePullPolicy": ["", "Always"],
    "command": [[], ["a"], ["b", "c"]],
    "env": [
        [],
        [{"name": "A", "value": "1"}],
        [{"name": "A", "value": ""}, {"name": "B", "value": "2"}],
        [{"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    ],
    "envFrom": [[], [{"configMapRef": {"name": "a"}}], [{"secretRef": {"name": "b"}}]],
    "ports": [[], [{"containerPort": 80}], [{"containerPort": 81, "name": "x"}]],
    "volumeMounts": [[], [{"name": "v", "mountPath": "/a"}], [{"name": "w", "mountPath": "/b"}]],
    "volumeDevices": [[], [{"name": "v", "devicePath": "/a"}]],
    "resources": [{}, {"requests": {}}, {"requests": {"cpu": "1"}}, {"limits": {"cpu": "2"}}],
    "securityContext": [{}, {"runAsUser": 0}, {"privileged": False}],
    "livenessProbe": [{"exec": {"command": ["x"]}, "periodSeconds": 0}, {"periodSeconds": 3}],
    "lifecycle": [{}, {"preStop": {"sleep": {"seconds": 1}}}],
    "workingDir": ["", "/w"],
    "tty": [True, False],
    "stdin": [True, False],
}
_SPEC: dict[str, list[Any]] = {
    "volumes": [[], [{"name": "v", "emptyDir": {}}], [{"name": "v", "hostPath": {"path": "/x"}}]],
    "hostNetwork": [True, False],
    "enableServiceLinks": [True, False],
    "automountServiceAccountToken": [True, False],
    "nodeSelector": [{}, {"a": "b"}, {"c": "d"}],
    "overhead": [{}, {"cpu": "1"}],
    "tolerations": [[], [{}], [{"key": "a"}]],
    "affinity": [
        {},
        {"podAffinity": {}},
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    ],
    "serviceAccountName": ["", "x", "y"],
    "priority": [0, 1],
    "securityContext": [{}, {"runAsUser": 0}, {"sysctls": []}],
    "imagePullSecrets": [[], [{"name": "x"}], [{}]],
    "terminationGracePeriodSeconds": [0, 5],
    "activeDeadlineSeconds": [0, 3],
    "dnsConfig": [{}, {"nameservers": []}],
    "hostAliases": [[], [{"ip": "10.0.0.1"}]],
    "resources": [{}, {"limits": {"cpu": "1"}}],
    "schedulingGates": [[], [{"name": "g"}]],
    "nodeName": ["", "n"],
}
_METADATA: dict[str, list[Any]] = {
    "name": ["x"],
    "labels": [{}, {"a": "b"}, {"a": "", "c": "d"}],
    "annotations": [{}, {"a": "b"}, {"a": "c"}],
    "finalizers": [[], ["example.com/a"], ["example.com/b"]],
    "ownerReferences": [[], [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]],
}


def random_pod(rng: random.Random, first: str) -> dict[str, Any]:
    """A pod whose first container has this name."""
    spec = {
        **_some(rng, _SPEC),
        "restartPolicy": rng.choice(["Never", "OnFailure"]),
        "containers": _containers(rng, [first, *_names(rng, "abc")]),
    }
    if rng.random() < 0.4:
        spec["initContainers"] = _containers(rng, _names(rng, "xyz"))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _some(rng, _METADATA), "spec": spec}


def _containers(rng: random.Random, names: list[str]) -> list[dict[str, Any]]:
    return [{"name": name, **_some(rng, _CONTAINER)} for name in names]


def _names(rng: random.Random, some: str) -> list[str]:
    return rng.sample(some, rng.randint(0, len(some)))


def _some(rng: random.Random, fields: dict[str, list[Any]]) -> dict[str, Any]:
    return {
        name: copy.deepcopy(rng.choice(values))
        for name, values in fields.items()
        if rng.random() < 0.35
    }
