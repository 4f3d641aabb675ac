"""The section `[kbroker]` of Airflow's configuration, without Airflow."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kbroker.airflow
from kbroker.airflow.options import OPTIONS, AirflowOptions
from kbroker.airflow.provider import get_provider_info
from kbroker.errors import ConfigError, MissingExtraError
from kbroker.kube_config import KubeConfig

ROOT = Path(__file__).resolve().parents[2]
URL = "redis://redis.example:6379/0"

# Option → a text that is not its default, what it sets, and to what.
SET: dict[str, tuple[str, str, Any]] = {
    "deployment": ("prod", "core.deployment", "prod"),
    "executor_lease": ("20", "core.executor_lease", 20.0),
    "reconcile_interval": ("12.5", "core.reconcile_interval", 12.5),
    "relaunch_limit": ("0", "core.relaunch_limit", 0),
    "launch_timeout": ("0", "core.launch_timeout", 0.0),
    "publish_batch": ("10", "core.publish_batch", 10),
    "event_batch": ("11", "core.event_batch", 11),
    "broker_url": ("redis://other.example:6379", "broker.url", "redis://other.example:6379"),
    "broker_prefix": ("{prod}:", "broker.prefix", "{prod}:"),
    "broker_scheduler_timeout": ("1", "broker.scheduler_timeout", 1.0),
    "broker_record_ttl": ("3600", "broker.record_ttl", 3600.0),
    "broker_priorities": ("now, normal", "broker.priorities", ("now", "normal")),
    "broker_default_priority": ("low", "broker.default_priority", "low"),
    "cluster": ("east", "kubernetes.cluster", "east"),
    "namespace": ("jobs", "kubernetes.namespace", "jobs"),
    "create_window": ("60", "kubernetes.create_window", 60.0),
    "gcp_service_account_keys": ("a=/k", "kubernetes.gcp_service_account_keys", "a=/k"),
    "delete_worker_pods": ("False", "kubernetes.delete_worker_pods", False),
    "delete_worker_pods_on_failure": ("no", "kubernetes.delete_worker_pods_on_failure", False),
    "watcher_silent_timeout": ("30", "watcher.silent_timeout", 30.0),
    "workload_delivery": ("secret", "workload_delivery", "secret"),
    "log_lines": ("7", "log_lines", 7),
    "check_interval": ("1", "check_interval", 1.0),
    "stop_grace": ("0", "stop_grace", 0.0),
}


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KBROKER_CONFIG", raising=False)
    for name in KubeConfig().values():
        monkeypatch.delenv(f"KBROKER__{name.upper().replace('.', '__')}", raising=False)


def airflow(**given: str) -> Callable[[str], str | None]:
    """Airflow's configuration: what is given, and the documented default of all else."""
    return {o.name: o.default for o in OPTIONS.values()}.__or__(given).get


def value(options: AirflowOptions, name: str) -> Any:
    return options.config.values()[name] if "." in name else getattr(options, name)


def test_every_option_is_tried_below() -> None:
    assert list(SET) == list(OPTIONS)


@pytest.mark.parametrize("option", SET)
def test_an_option_sets_its_setting_and_nothing_else(option: str) -> None:
    text, name, wanted = SET[option]
    before = AirflowOptions.read(airflow(broker_url=URL))
    after = AirflowOptions.read(airflow(**{"broker_url": URL, option: text}))
    assert value(after, name) == wanted != value(before, name)
    names = [*KubeConfig().values(), "workload_delivery", "log_lines", "check_interval"]
    names.append("stop_grace")
    assert [n for n in names if value(after, n) != value(before, n)] == [name]


def test_without_any_option_everything_has_its_default() -> None:
    options = AirflowOptions.read({"broker_url": URL}.get)
    assert options == AirflowOptions.read(airflow(broker_url=URL))
    assert options.config == KubeConfig.from_values(**{"broker.url": URL})
    assert (options.workload_delivery, options.log_lines) == ("argument", 100)
    assert (options.check_interval, options.stop_grace) == (5.0, 60.0)


@pytest.mark.parametrize("text", [None, "", "  ", "30.0"])
def test_unset_or_default_leaves_it_to_kbrokers_own_configuration(
    text: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kbroker.toml"
    file.write_text("[core]\nreconcile_interval = 7.0\n")
    monkeypatch.setenv("KBROKER_CONFIG", str(file))
    monkeypatch.setenv("KBROKER__BROKER__URL", URL)
    options = AirflowOptions.read({"reconcile_interval": text}.get)
    assert options.config.core.reconcile_interval == 7.0
    assert options.config.source("core.reconcile_interval") == str(file)
    assert options.config.broker.url == URL


def test_any_other_text_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBROKER__KUBERNETES__NAMESPACE", "elsewhere")
    monkeypatch.setenv("KBROKER__BROKER__URL", "redis://elsewhere.example:6379")
    options = AirflowOptions.read({"namespace": "jobs", "broker_url": URL}.get)
    assert options.config.kubernetes.namespace == "jobs"
    assert options.config.source("kubernetes.namespace") == "[kbroker] namespace"
    assert options.config.broker.url == URL


def test_airflow_names_the_process_and_counts_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBROKER__CORE__EXECUTOR_ID", "somebody")
    monkeypatch.setenv("KBROKER__CORE__PARALLELISM", "3")
    core = AirflowOptions.read(airflow(broker_url=URL), executor_id="scheduler-1").config.core
    assert (core.executor_id, core.parallelism) == ("scheduler-1", 0)
    assert AirflowOptions.read(airflow(broker_url=URL)).config.core.executor_id == ""


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("executor_lease", "soon", "[kbroker] executor_lease: core.executor_lease = 'soon': must"),
        ("relaunch_limit", "101", "[kbroker] relaunch_limit: core.relaunch_limit = '101': must be"),
        ("delete_worker_pods", "perhaps", "[kbroker] delete_worker_pods: "),
        ("namespace", "A b", "[kbroker] namespace: kubernetes.namespace = 'A b': must be a DNS"),
        ("broker_prefix", "x", "[kbroker] broker_prefix: broker.prefix = 'x': must be a text with"),
        ("broker_default_priority", "now", "[kbroker] broker_default_priority: broker.default"),
        ("gcp_service_account_keys", "x", "[kbroker] gcp_service_account_keys: "),
        ("workload_delivery", "post", "[kbroker] workload_delivery = 'post': must be one of"),
        ("log_lines", "0", "[kbroker] log_lines = '0': must be at least 1"),
        ("log_lines", "many", "[kbroker] log_lines = 'many': must be a whole number"),
        ("check_interval", "0", "[kbroker] check_interval = '0': must be at least 0.05 s"),
        ("stop_grace", "-1", "[kbroker] stop_grace = '-1': must be at least 0 s"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(option: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AirflowOptions.read(airflow(**{"broker_url": URL, option: text}))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_kbrokers_own_configuration_names_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KBROKER__CORE__EVENT_BATCH", "0")
    with pytest.raises(ConfigError, match="environment variable KBROKER__CORE__EVENT_BATCH"):
        AirflowOptions.read(airflow(broker_url=URL))


def test_without_redis_it_says_what_to_set() -> None:
    with pytest.raises(ConfigError) as caught:
        AirflowOptions.read(airflow())
    assert "set [kbroker] broker_url in Airflow's configuration" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_does_not_show() -> None:
    options = AirflowOptions.read(airflow(broker_url="redis://:hunter2@redis.example:6379"))
    assert "hunter2" not in repr(options)


def test_airflow_is_told_each_option_with_its_default() -> None:
    described = get_provider_info()["config"]["kbroker"]["options"]
    assert list(described) == list(OPTIONS)
    for name, option in described.items():
        assert option["description"].strip(), name
        assert isinstance(option["default"], str), name
        assert option["sensitive"] is (name == "broker_url")
        # Airflow replaces what stands between braces, unless told not to.
        assert option["is_template"] is ("{" in option["default"])
    assert described["broker_priorities"]["default"] == "high,normal,low"
    assert {o["type"] for o in described.values()} == {"string", "boolean", "integer", "float"}


def test_airflow_finds_the_provider() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["apache_airflow_provider"].values()
    assert [entry.partition(":")[::2] for entry in entries] == [
        (get_provider_info.__module__, get_provider_info.__name__)
    ]
    # Airflow refuses a provider that gives another name than its package.
    assert get_provider_info()["package-name"] == project["name"]


def test_the_options_need_neither_airflow_nor_redis() -> None:
    code = (
        "import sys; import kbroker.airflow.provider as p; p.get_provider_info(); "
        "print([m for m in ('airflow', 'redis', 'dramatiq', 'kubernetes') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_without_airflow_the_executor_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'airflow'", name="airflow")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'kbroker\[airflow\]'"):
        kbroker.airflow.__getattr__("KBrokerExecutor")
    with pytest.raises(AttributeError):
        kbroker.airflow.__getattr__("Executor")
