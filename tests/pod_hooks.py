"""Hooks as `kubernetes.pod_mutation_hook` names them."""

from __future__ import annotations

from typing import Any

# Every pod that `seen` got.
SEEN: list[Any] = []
NO_FUNCTION = 7


def nothing(pod: Any) -> None:
    """Leave the pod as it is."""


def everything(pod: Any) -> None:
    """What hooks commonly do, with the client's models and with plain dicts."""
    from kubernetes.client import models as k8s  # noqa: PLC0415

    pod.metadata.labels["hooked"] = "yes"
    pod.metadata.annotations["example.com/hook"] = "1"
    pod.spec.tolerations = [*(pod.spec.tolerations or []), k8s.V1Toleration(key="hook")]
    pod.spec.node_selector = {"pool": "tasks"}
    first = pod.spec.containers[0]
    first.image = f"mirror.example.com/{first.image}"
    first.env = [*(first.env or []), k8s.V1EnvVar(name="HOOKED", value="1")]
    first.resources = k8s.V1ResourceRequirements(requests={"cpu": "3"})
    pod.spec.init_containers = [k8s.V1Container(name="before", image="busybox")]
    pod.spec.containers.append(k8s.V1Container(name="after", image="busybox"))


def a_thief(pod: Any) -> None:
    """Claim all of the identity."""
    pod.metadata.name = "stolen"
    pod.metadata.namespace = "kube-system"
    pod.metadata.labels = {"free": "x", "dag_id": "stolen"}
    pod.metadata.annotations = {"free": "x", "kbroker/launch-id": "stolen", "map_index": "3"}
    pod.metadata.finalizers = None
    pod.metadata.uid = "stolen"
    base = next(each for each in pod.spec.containers if each.name == "base")
    base.args = ["stolen"]


def seen(pod: Any) -> None:
    """Keep what is handed over."""
    SEEN.append(pod)


def in_front(pod: Any) -> None:
    """Put another container first."""
    pod.spec.containers.insert(0, type(pod.spec.containers[0])(name="first", image="x"))


def renamed(pod: Any) -> None:
    """Leave no `base`."""
    pod.spec.containers[0].name = "other"


def nonsense(pod: Any) -> None:
    """Leave what is no pod."""
    pod.metadata.labels = {"number": {"no": "text"}}


def failing(pod: Any) -> None:
    """Refuse the pod, in two lines, and quote what it runs."""
    words = pod.spec.containers[0].command or pod.spec.containers[0].args
    raise ValueError(f"no team\nin {' '.join(words)}")
