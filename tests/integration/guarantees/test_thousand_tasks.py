"""A thousand tasks without a fault: each pod is created once and deleted once, no more."""

from __future__ import annotations

import collections
from pathlib import Path

from tests.integration.stack import Drive, Stack, running

TASKS = 1000

# The stack's limits are short for the tests of faults: there a machine that stands still for two
# seconds is a fault. This run is to be free of them.
PATIENT = {
    "broker.redelivery_after": 60.0,
    "broker.socket_timeout": 30.0,
    "core.executor_lease": 60.0,
    "core.reconcile_interval": 60.0,
    "kubernetes.create_window": 15.0,  # a finished pod is deleted when it is over
    "kubernetes.request_timeout": 30.0,
    "kubernetes.retry_budget": 45.0,
    "watcher.lease": 60.0,
}


def answers(stack: Stack, verb: str) -> dict[int, int]:
    """Status → how many requests of this verb for pods were answered with it."""
    found: dict[int, int] = collections.Counter()
    for name, count in stack.cluster.admin.get("/_local/stats").items():
        asked, resource, status = name.split()
        if (asked, resource) == (verb, "pods"):
            found[int(status)] += count
    return dict(found)


def test_each_of_a_thousand_pods_is_created_and_deleted_exactly_once(tmp_path: Path) -> None:
    with running(tmp_path, **PATIENT) as stack:
        drive = Drive(stack, stack.executor())
        for n in range(TASKS):
            drive.want(f"t{n}", ["true"])
        drive.finish(90)
        outcomes = collections.Counter(state for f in drive.finals.values() for state, _ in f)
        assert outcomes == {"success": TASKS}
        pods = stack.keys.pods("default", "default")
        drive.until("every pod is gone", lambda: not stack.redis.hlen(pods), 90)
        drive.executor.end()
        assert answers(stack, "create") == {201: TASKS}
        assert answers(stack, "delete") == {200: TASKS}
        stack.kill()
