"""What will be otherwise than under Airflow's KubernetesExecutor, given a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kbroker.airflow.migration.airflow_cfg import Configured
from kbroker.airflow.options import OPTIONS
from kbroker.settings import WatcherSettings

_QUEUED_TIMEOUT = 600.0  # Airflow's default, in seconds


def differences(
    configured: Configured, airflows: Mapping[str, str], options: Mapping[str, str]
) -> Iterator[str]:
    """Sentences, the most important first.

    Args:
        configured: Airflow's configuration.
        airflows: the texts of the KubernetesExecutor's options that are set.
        options: the new section `[kbroker]`.
    """
    queued = configured.get(("scheduler", "task_queued_timeout"))
    airflow_waits = _number(queued.text if queued else "", _QUEUED_TIMEOUT)
    default = OPTIONS["launch_timeout"].default
    kbroker_waits = _number(options.get("launch_timeout", default), float(default))
    if not kbroker_waits or airflow_waits < kbroker_waits:
        allowed = f"{kbroker_waits:g} s" if kbroker_waits else "for ever"
        yield (
            f"[scheduler] task_queued_timeout = {airflow_waits:g} s: the scheduler itself queues a "
            "task anew that has been queued for longer, twice at most, then fails it. A launch "
            f"may wait {allowed} ([kbroker] launch_timeout), for a quota, say: raise "
            "task_queued_timeout above the longest wait that is right."
        )
    yield (
        "A workload whose token ends while it waits is not lost: its launch is published again, "
        "ahead of others, with a new token."
    )
    yield (
        "A quota, a 429 or an API server that is away fails no task: the launch waits, and "
        "kbroker describe says why."
    )
    yield (
        f"A pod that has not started after {WatcherSettings().pending_timeout:g} s "
        "(watcher.pending_timeout) is given up and launched again; it was left pending."
    )
    if "delete_worker_pods_on_failure" not in airflows:
        yield (
            "Pods that failed are deleted, too: delete_worker_pods_on_failure was False by "
            "default, and is true here."
        )
    if "pod_launch_failure_retries" not in airflows:
        yield (
            "A pod that failed before its container started is launched again up to "
            f"{OPTIONS['relaunch_limit'].default} times ([kbroker] relaunch_limit); it was once "
            "(pod_launch_failure_retries)."
        )


def _number(text: str, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default
