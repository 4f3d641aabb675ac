"""The commands of `airflow` that docs/airflow.md shows, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.airflow.migration.executor_list import KBROKER
from kbroker.airflow.options import OPTIONS
from kbroker.local.redis_server import EmbeddedRedis

PAGE = Path(__file__).resolve().parents[2] / "docs" / "airflow.md"
COMMANDS = re.findall(r"^    (airflow .*)$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    home = tmp_path_factory.mktemp("airflow")
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("AIRFLOW", "KBROKER"))}
    plain["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{plain['PATH']}"
    with EmbeddedRedis(folder=home / "redis") as server:
        yield {
            **plain,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__EXECUTOR": f"KubernetesExecutor,{KBROKER}",
            "AIRFLOW__KBROKER__BROKER_URL": server.url,
        }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command.split(), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "config list" in command:
        assert [n for n in OPTIONS if not re.search(rf"\b{n} = ", done.stdout)] == []
    if command == "airflow providers list":
        assert re.search(r"^kbroker +\| ", done.stdout, re.MULTILINE)


def test_the_page_shows_commands_of_airflow() -> None:
    assert any(command.startswith("airflow kbroker ") for command in COMMANDS)
