"""The downward API: a pod's own fields and resources, as text.

https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

import json
import math
import os
import re
from fractions import Fraction
from typing import Any

from kbroker.local.cluster.quantity import quantity
from kbroker.local.cluster.store import Object

_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_MAPS = ("metadata.labels", "metadata.annotations")


def field(path: str, pod: Object) -> str | None:
    """What a `fieldRef` names; None when the pod has no such field.

    Labels and annotations as a whole are lines of `name="value"`, in order of their names.
    """
    keyed = _KEYED.fullmatch(path)
    if keyed:
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    part: Any = pod
    for step in path.split("."):
        part = part.get(step) if isinstance(part, dict) else None
    if path in _MAPS:
        quoted = (
            f"{n}={json.dumps(v, ensure_ascii=False)}" for n, v in sorted((part or {}).items())
        )
        return "\n".join(quoted)
    if isinstance(part, list):  # status.podIPs, status.hostIPs
        return ",".join(str(item["ip"]) for item in part)
    return None if part is None else str(part)


def resource(reference: Object, pod: Object, container: Object | None) -> str | None:
    """What a `resourceFieldRef` names, in units of its divisor, rounded up; None if unreadable.

    A limit that is not set is what the machine has; a request that is not set is the limit, or 0.

    Args:
        reference: containerName, resource ("limits.memory"), divisor.
        pod: the pod.
        container: where the reference stands; None in a volume.
    """
    name = reference.get("containerName")
    if name:
        specs = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        container = next((spec for spec in specs if spec["name"] == name), None)
    kind, _, what = str(reference.get("resource", "")).partition(".")
    if container is None or kind not in ("limits", "requests"):
        return None
    resources = container.get("resources") or {}
    given = (resources.get(kind) or {}).get(what)
    if given is None and kind == "requests":
        given = (resources.get("limits") or {}).get(what, 0)
    amount = _machine(what) if given is None else quantity(given)
    divisor = quantity(reference.get("divisor") or 1) or Fraction(1)
    return None if amount is None else str(math.ceil(amount / divisor))


def _machine(what: str) -> Fraction | None:
    if what == "cpu":
        return Fraction(os.cpu_count() or 1)
    if what == "memory":
        return Fraction(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return None
