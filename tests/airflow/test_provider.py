"""kbroker as Airflow's provider manager and configuration see it."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager

import kbroker
from kbroker.airflow.options import OPTIONS, AirflowOptions
from kbroker.airflow.provider import get_provider_info

URL = "redis://redis.example:6379/0"


def test_what_airflow_is_told_is_valid() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_airflow_lists_the_provider() -> None:
    found = ProvidersManager().providers["kbroker"]
    assert found.version == kbroker.__version__
    assert "kbroker.airflow.KBrokerExecutor" in ProvidersManager().executor_class_names


@pytest.mark.parametrize("option", OPTIONS)
def test_airflows_default_of_an_option_is_ours(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"AIRFLOW__KBROKER__{option.upper()}", raising=False)
    assert conf.get("kbroker", option) == OPTIONS[option].default


def test_the_options_are_read_from_airflows_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("KBROKER_CONFIG", "KBROKER__CORE__RELAUNCH_LIMIT", "KBROKER__BROKER__URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AIRFLOW__KBROKER__BROKER_URL_CMD", f"echo {URL}")
    monkeypatch.setenv("AIRFLOW__KBROKER__RELAUNCH_LIMIT", "7")
    read = AirflowOptions.read(lambda name: conf.get("kbroker", name))
    assert (read.config.broker.url, read.config.core.relaunch_limit) == (URL, 7)
    assert (read.log_lines, read.config.core.launch_timeout) == (100, 3600.0)
