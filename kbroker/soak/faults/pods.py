"""Pods that are harmed from outside."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from kbroker.errors import ClusterError
from kbroker.pod import Pod
from kbroker.soak.faults.fault import Begin, Missed, fault
from kbroker.soak.stack import SoakStack

_LANE = "pods"
_MOST = 3


def _victims(stack: SoakStack, rng: random.Random, wanted: Callable[[Pod], bool]) -> list[Pod]:
    found = sorted(filter(wanted, stack.pods.all()), key=lambda pod: pod.name)
    if not found:
        raise Missed
    return rng.sample(found, min(len(found), rng.randint(1, _MOST)))


def _runs(pod: Pod) -> bool:
    return pod.phase == "Running"


def _waits(pod: Pod) -> bool:
    return pod.phase == "Pending"


def _delete(wanted: Callable[[Pod], bool]) -> Begin:
    def begin(stack: SoakStack, rng: random.Random) -> None:
        for pod in _victims(stack, rng, wanted):
            stack.hits[pod.uid] = "deleted by hand"
            stack.pods.delete(pod)

    return begin


def _disrupt(how: str) -> Begin:
    def begin(stack: SoakStack, rng: random.Random) -> None:
        for pod in _victims(stack, rng, _runs):
            stack.hits[pod.uid] = how
            with contextlib.suppress(ClusterError):  # it has just ended
                stack.admin.post(f"/_local/pods/{pod.namespace}/{pod.name}/disrupt", {"as": how})

    return begin


FAULTS = [
    fault("pod_deleted_running", _LANE, _delete(_runs), "somebody deletes running pods"),
    fault("pod_deleted_pending", _LANE, _delete(_waits), "somebody deletes pending pods"),
    fault("pod_evicted", _LANE, _disrupt("evicted"), "the kubelet evicts pods", local=True),
    fault(
        "pod_evicted_by_api", _LANE, _disrupt("api_evicted"), "somebody drains the node", local=True
    ),
    fault(
        "pod_preempted",
        _LANE,
        _disrupt("preempted"),
        "more important pods take their place",
        local=True,
    ),
    fault("node_lost", _LANE, _disrupt("node_lost"), "their node is gone", local=True),
    fault("node_tainted", _LANE, _disrupt("tainted"), "their node is tainted", local=True),
]
