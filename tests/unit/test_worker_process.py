"""The configuration that worker processes get."""

from __future__ import annotations

import pytest

from kbroker.cli.stack import with_defaults
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process


def test_children_get_this_configuration_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBROKER__KUBERNETES__NAMESPACE", "elsewhere")
    monkeypatch.setenv("KBROKER_CONFIG", "/nonexistent.toml")
    monkeypatch.setenv("OTHER", "kept")
    config = KubeConfig.from_values(**{"core.parallelism": 3, "broker.url": "redis://h:1"})
    env = worker_process.environment(config)
    assert env["OTHER"] == "kept"
    assert KubeConfig.load(env=env) == config


def test_modules_are_not_imported_from_the_present_folder() -> None:
    command = worker_process.command(worker_process.launcher(2, 4))
    assert "-P" in command
    assert command[-1] == "--path"  # dramatiq's own way of doing so, emptied


def test_other_defaults_leave_alone_what_was_given() -> None:
    given = KubeConfig.from_values(**{"core.parallelism": 3, "watcher.lease": 15.0})
    config = with_defaults(
        given,
        {"core.parallelism": "9", "watcher.lease": "5", "watcher.check_interval": "0.5"},
        {"broker.url": "redis://own"},
    )
    assert config.core.parallelism == 3
    assert config.watcher.lease == 15.0  # the default's value, but given
    assert config.watcher.check_interval == 0.5
    assert config.broker.url == "redis://own"
