"""What may go wrong in a soak: every fault by name."""

from __future__ import annotations

from kbroker.soak.faults import api, pods, redis, roles, watch
from kbroker.soak.faults.fault import Fault

FAULTS: dict[str, Fault] = {
    fault.shape.name: fault
    for module in (roles, api, watch, redis, pods)
    for fault in module.FAULTS
}

__all__ = ["FAULTS", "Fault"]
