"""Defaults are promises: each stands here a second time. And who states a wrong one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbroker.errors import ConfigError
from kbroker.kube_config import ENV_PREFIX, KubeConfig

# Written by hand, on purpose: a default that changes must change here, in config/kbroker.toml
# and in docs/configuration.md, and in the changelog.
DEFAULTS: dict[str, Any] = {
    "core.deployment": "kbroker",
    "core.executor_id": "",
    "core.parallelism": 0,
    "core.executor_lease": 15.0,
    "core.reconcile_interval": 30.0,
    "core.relaunch_limit": 3,
    "core.launch_timeout": 3600.0,
    "core.publish_batch": 1000,
    "core.event_batch": 1000,
    "broker.url": "",
    "broker.prefix": "{kbroker}:",
    "broker.socket_timeout": 5.0,
    "broker.scheduler_timeout": 0.5,
    "broker.redelivery_after": 15.0,
    "broker.max_deliveries": 3,
    "broker.batch_size": 25,
    "broker.record_ttl": 86400.0,
    "broker.priorities": ("high", "normal", "low"),
    "broker.default_priority": "normal",
    "kubernetes.cluster": "default",
    "kubernetes.namespace": "default",
    "kubernetes.kubeconfig": "",
    "kubernetes.context": "",
    "kubernetes.create_window": 30.0,
    "kubernetes.request_timeout": 10.0,
    "kubernetes.retry_budget": 20.0,
    "kubernetes.pool_size": 64,
    "kubernetes.pod_template_file": "",
    "kubernetes.image": "",
    "kubernetes.image_pull_policy": "",
    "kubernetes.service_account_name": "",
    "kubernetes.gcp_service_account_keys": "",
    "kubernetes.merge": "strategic",
    "kubernetes.pod_mutation_hook": "",
    "kubernetes.delete_worker_pods": True,
    "kubernetes.delete_worker_pods_on_failure": True,
    "kubernetes.active_deadline": 0.0,
    "launcher.retry_base": 0.1,
    "launcher.retry_max": 5.0,
    "launcher.retry_after_max": 30.0,
    "launcher.max_create_rate": 0.0,
    "launcher.park_base": 1.0,
    "launcher.park_max": 60.0,
    "launcher.park_lease": 60.0,
    "launcher.drain_interval": 0.5,
    "watcher.lease": 15.0,
    "watcher.resync_interval": 600.0,
    "watcher.watch_timeout": 290.0,
    "watcher.silent_timeout": 90.0,
    "watcher.page_size": 500,
    "watcher.check_interval": 5.0,
    "watcher.pending_timeout": 600.0,
    "watcher.fatal_waiting_grace": 30.0,
    "watcher.orphan_after": 86400.0,
    "watcher.backoff_base": 0.5,
    "watcher.backoff_max": 30.0,
}
# What no setting of the type takes, as text.
WRONG = {int: "x", float: "x", bool: "perhaps"}


def test_the_defaults_are_these() -> None:
    found = KubeConfig.load(env={}).values()
    assert found == DEFAULTS
    assert {n: type(v) for n, v in found.items()} == {n: type(v) for n, v in DEFAULTS.items()}


def refusal(tmp_path: Path, source: str, name: str, value: str) -> tuple[str, str]:
    """What is said of a text from this source, and how it is to begin."""
    section, _, key = name.partition(".")
    given: dict[str, Any] = {"env": {}}
    if source == "file":
        path = given["path"] = tmp_path / "kbroker.toml"
        path.write_text(f'[{section}]\n{key} = "{value}"\n')
        where = str(path)
    elif source == "environment":
        variable = ENV_PREFIX + name.upper().replace(".", "__")
        given["env"] = {variable: value}
        where = f"environment variable {variable}"
    else:
        given["overrides"] = {name: value}
        where = f"argument {name}"
    with pytest.raises(ConfigError) as caught:
        KubeConfig.load(**given)
    return str(caught.value), where


@pytest.mark.parametrize("source", ["file", "environment", "argument"])
@pytest.mark.parametrize("name", [n for n, v in DEFAULTS.items() if type(v) in WRONG])
def test_a_wrong_value_names_the_source_that_it_came_from(
    tmp_path: Path, name: str, source: str
) -> None:
    wrong = WRONG[type(DEFAULTS[name])]
    said, where = refusal(tmp_path, source, name, wrong)
    assert said.startswith(where)
    assert repr(wrong) in said
    assert "must be " in said
    assert "\n" not in said


@pytest.mark.parametrize("source", ["file", "environment", "argument"])
@pytest.mark.parametrize("name", [f"{s}.no_such_key" for s in ("core", "broker", "watcher")])
def test_an_unknown_key_names_the_source_that_it_came_from(
    tmp_path: Path, name: str, source: str
) -> None:
    said, where = refusal(tmp_path, source, name, "1")
    assert said.startswith(where)
    assert "no_such_key" in said
    assert "\n" not in said
