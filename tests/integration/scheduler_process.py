"""A scheduler in a process of its own, to be killed: `python -m … <ledger> <states> <tasks>`.

It wants `tasks` tasks, adopts what an earlier life of it published, and appends
each final state to a file before it lets the executor go on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kbroker.executor import KubernetesExecutor
from kbroker.kube_config import KubeConfig
from kbroker.message import LaunchRequest
from kbroker.task import TaskKey
from tests.integration.stack import LEDGER_TASK


def main(ledger: str, states: str, count: int, seconds: str) -> None:
    """Run until every task is final."""
    done = {line.split()[0] for line in Path(states).read_text().splitlines()}
    names = [f"t{n}" for n in range(count) if f"t{n}" not in done]
    executor = KubernetesExecutor(KubeConfig.load())
    executor.start()
    requests = [
        LaunchRequest(
            TaskKey("dag", name, "run"),
            ["sh", "-c", LEDGER_TASK, name, ledger, seconds],
            f"launch-{name}",
        )
        for name in names
    ]
    refused = executor.adopt(requests)
    assert not refused, refused
    left = set(names)
    while left:
        executor.heartbeat()
        for key, (state, _info) in executor.get_event_buffer().items():
            if state in ("success", "failed"):
                with open(states, "a") as out:
                    out.write(f"{key.task_id} {state}\n")
                left.discard(key.task_id)
        time.sleep(0.05)
    executor.heartbeat()
    executor.end()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
