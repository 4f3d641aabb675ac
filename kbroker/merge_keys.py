"""Which lists of a pod a strategic merge patch merges, and by which key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class MergedList:
    """A list that is merged: by the elements' `key`, or as a set of scalars."""

    key: str | None = None
    items: Mapping[str, Any] = field(default_factory=dict)


# A field's name → the rules inside it; absent means maps merge, lists are replaced.
Schema: TypeAlias = Mapping[str, "MergedList | Schema"]

# The merge keys stand in the `patchMergeKey` tags of the pod's API types
# (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/).
_META: Schema = {"ownerReferences": MergedList("uid"), "finalizers": MergedList()}
_VOLUME: Schema = {"ephemeral": {"volumeClaimTemplate": {"metadata": _META}}}
_CONTAINERS = MergedList(
    "name",
    {
        "env": MergedList("name"),
        "ports": MergedList("containerPort"),
        "volumeMounts": MergedList("mountPath"),
        "volumeDevices": MergedList("devicePath"),
    },
)
POD: Schema = {
    "metadata": _META,
    "spec": {
        "containers": _CONTAINERS,
        "initContainers": _CONTAINERS,
        "ephemeralContainers": _CONTAINERS,
        "volumes": MergedList("name", _VOLUME),
        "imagePullSecrets": MergedList("name"),
        "hostAliases": MergedList("ip"),
        "topologySpreadConstraints": MergedList("topologyKey"),
        "resourceClaims": MergedList("name"),
        "schedulingGates": MergedList("name"),
    },
    "status": {
        "conditions": MergedList("type"),
        "podIPs": MergedList("ip"),
        "hostIPs": MergedList("ip"),
        "resourceClaimStatuses": MergedList("name"),
    },
}
