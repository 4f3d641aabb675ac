"""The whole of a soak, short: its stack, its faults, its audit and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kbroker.cli.soak import chosen
from kbroker.errors import UsageError
from kbroker.soak import ledger
from kbroker.soak.faults import FAULTS


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kbroker", "soak", *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_nothing_is_lost_or_run_twice_while_launchers_are_killed(tmp_path: Path) -> None:
    options = ("--tasks", "20", "--duration", "8", "--dir", str(tmp_path), "--json")
    done = soak(*options, "--faults", "launcher_killed,redis_cut")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert set(report["faults"]) == {"launcher_killed", "redis_cut"}
    verdict = report["verdict"]
    assert verdict["tasks"] >= 20
    assert verdict["executed"] == sum(not line.end for line in ledger.read(tmp_path / "ledger"))
    assert verdict["executed"] > 10
    kept = {name: verdict[name] for name in ("lost", "duplicated", "stuck", "wrong_state")}
    assert not any(kept.values()), kept


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", []),
        ("all", list(FAULTS)),
        ("redis_cut", ["redis_cut"]),
        ("redis", [name for name, one in FAULTS.items() if one.shape.lane == "redis"]),
        ("redis_cut,redis_cut,node_lost", ["redis_cut", "node_lost"]),
    ],
)
def test_names_and_lanes_of_faults(text: str, names: list[str]) -> None:
    assert chosen(text) == names


def test_a_fault_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no fault or lane 'typo'; see: kbroker soak --list"):
        chosen("typo")
