"""Every setting, one by one: where its value comes from, and that its default is no accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbroker import settings_file
from kbroker.errors import ConfigError
from kbroker.kube_config import ENV_PREFIX, KubeConfig

ROOT = Path(__file__).resolve().parents[2]
# Three values of each setting, none of them the default. Two of them for those with few.
VALUES: dict[str, tuple[Any, ...]] = {
    "core.deployment": ("one", "two", "three"),
    "core.executor_id": ("one", "two", "three"),
    "core.parallelism": (1, 2, 3),
    "core.executor_lease": (1.5, 2.0, 3.0),
    "core.reconcile_interval": (1.5, 2.0, 3.0),
    "core.relaunch_limit": (1, 2, 4),
    "core.launch_timeout": (1.5, 2.0, 0.0),
    "core.publish_batch": (1, 2, 3),
    "core.event_batch": (1, 2, 3),
    "broker.url": ("redis://a", "redis://b", "rediss://c"),
    "broker.prefix": ("{a}:", "{b}:", "x{c}"),
    "broker.socket_timeout": (1.5, 2.0, 3.0),
    "broker.scheduler_timeout": (1.5, 2.0, 3.0),
    "broker.redelivery_after": (1.5, 2.0, 3.0),
    "broker.max_deliveries": (1, 2, 4),
    "broker.batch_size": (1, 2, 3),
    "broker.record_ttl": (60.0, 61.5, 62.0),
    "broker.priorities": (("normal",), ("normal", "b"), ("c", "normal", "a")),
    "broker.default_priority": ("high", "low", "high"),
    "kubernetes.cluster": ("one", "two", "three"),
    "kubernetes.namespace": ("one", "two", "three"),
    "kubernetes.kubeconfig": ("/a", "/b", "/c"),
    "kubernetes.context": ("one", "two", "three"),
    "kubernetes.create_window": (1.5, 2.0, 3.0),
    "kubernetes.request_timeout": (1.5, 2.0, 3.0),
    "kubernetes.retry_budget": (1.5, 2.0, 0.0),
    "kubernetes.pool_size": (1, 2, 3),
    "kubernetes.pod_template_file": ("/a", "/b", "/c"),
    "kubernetes.image": ("one", "two", "three"),
    "kubernetes.image_pull_policy": ("Always", "Never", "IfNotPresent"),
    "kubernetes.service_account_name": ("one", "two", "three"),
    "kubernetes.gcp_service_account_keys": ("a=/x", "a=/x,b=/y", "c=/z"),
    "kubernetes.merge": ("airflow", "airflow", "airflow"),
    "kubernetes.pod_mutation_hook": ("a.b", "a.c", "a:d"),
    "kubernetes.delete_worker_pods": (False, False, False),
    "kubernetes.delete_worker_pods_on_failure": (False, False, False),
    "kubernetes.active_deadline": (1.5, 2.0, 3.0),
    "launcher.retry_base": (0.0, 0.2, 0.3),
    "launcher.retry_max": (1.5, 2.0, 3.0),
    "launcher.retry_after_max": (1.5, 2.0, 3.0),
    "launcher.max_create_rate": (1.5, 2.0, 3.0),
    "launcher.park_base": (0.5, 2.0, 3.0),
    "launcher.park_max": (1.5, 2.0, 3.0),
    "launcher.park_lease": (1.5, 2.0, 3.0),
    "launcher.drain_interval": (1.5, 2.0, 3.0),
    "watcher.lease": (1.5, 2.0, 3.0),
    "watcher.resync_interval": (1.5, 2.0, 3.0),
    "watcher.watch_timeout": (1.5, 2.0, 3.0),
    "watcher.silent_timeout": (1.5, 2.0, 3.0),
    "watcher.page_size": (1, 2, 3),
    "watcher.check_interval": (1.5, 2.0, 3.0),
    "watcher.pending_timeout": (1.5, 2.0, 3.0),
    "watcher.fatal_waiting_grace": (1.5, 2.0, 0.0),
    "watcher.orphan_after": (1.5, 2.0, 3.0),
    "watcher.backoff_base": (0.0, 0.2, 0.3),
    "watcher.backoff_max": (1.5, 2.0, 3.0),
}
# A wrong value of each type, as it stands in a file.
WRONG = {str: 7, int: "x", float: "x", bool: "perhaps", tuple: 7}


def test_the_table_has_every_setting() -> None:
    assert set(VALUES) == set(KubeConfig().values())


def as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", VALUES)
def test_the_environment_wins_over_the_file_and_an_argument_over_both(
    tmp_path: Path, name: str
) -> None:
    section, _, key = name.partition(".")
    in_file, in_environment, in_argument = VALUES[name]
    path = tmp_path / "kbroker.toml"
    path.write_text(f"[{section}]\n{key} = {settings_file.toml_value(in_file)}\n")
    variable = ENV_PREFIX + name.upper().replace(".", "__")
    env = {variable: as_text(in_environment)}

    def load(**given: Any) -> tuple[Any, str]:
        found = KubeConfig.load(**{"env": {}, **given})
        return found.values()[name], found.source(name)

    default = KubeConfig().values()[name]
    assert in_file != default
    assert load() == (default, "default")
    assert load(path=path) == (in_file, str(path))
    assert load(path=path, env=env) == (in_environment, f"environment variable {variable}")
    everything = {"path": path, "env": env, "overrides": {name: as_text(in_argument)}}
    assert load(**everything) == (in_argument, f"argument {name}")
    # Half of the time a default is the strongest of all: an argument may also restore it.
    restored = {**everything, "overrides": {name: default}}
    assert load(**restored) == (default, f"argument {name}")


@pytest.mark.parametrize("name", VALUES)
def test_a_wrong_value_names_its_source_the_setting_and_what_was_given(
    tmp_path: Path, name: str
) -> None:
    section, _, key = name.partition(".")
    wrong = WRONG[type(VALUES[name][0])]
    path = tmp_path / "kbroker.toml"
    path.write_text(f"[{section}]\n{key} = {settings_file.toml_value(wrong)}\n")
    with pytest.raises(ConfigError) as caught:
        KubeConfig.load(path, env={})
    assert str(caught.value).startswith(f"{path}: {name} = {wrong!r}: must be ")


@pytest.mark.parametrize("name", VALUES)
def test_a_child_process_gets_the_same_value(name: str) -> None:
    given = KubeConfig.from_values(**{name: VALUES[name][1]})
    again = KubeConfig.load(env=given.as_env())
    assert again.values() == given.values()


def test_the_page_of_all_settings_is_the_code() -> None:
    """A default that changes must change here, too: nobody should learn of it by surprise."""
    assert (ROOT / "docs" / "configuration.md").read_text() == settings_file.page(), (
        "write it anew: python -m kbroker.settings_file --page > docs/configuration.md"
    )
