"""The whole of a soak, short: its stack, its faults, its audit and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kbroker.cli.soak import chosen, chosen_kinds
from kbroker.errors import UsageError
from kbroker.local.cluster_process import LocalCluster
from kbroker.soak import ledger
from kbroker.soak.faults import FAULTS
from kbroker.soak.workload import KINDS


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kbroker", "soak", *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def kept(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """The report of a soak that kept every promise."""
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    verdict = report["verdict"]
    broken = {name: verdict[name] for name in ("lost", "duplicated", "stuck", "wrong_state")}
    assert not any(broken.values()), broken
    assert verdict["executed"] == sum(not line.end for line in ledger.read(folder / "ledger"))
    return report


def test_nothing_is_lost_or_run_twice_whatever_happens(tmp_path: Path) -> None:
    options = ("--tasks", "200", "--duration", "60", "--dir", str(tmp_path), "--json")
    report = kept(soak(*options), tmp_path)
    assert report["verdict"]["tasks"] >= 200
    assert report["verdict"]["executed"] > 100
    assert len(report["faults"]) > 20


def test_on_a_cluster_that_does_not_help(tmp_path: Path) -> None:
    """Its faults come from proxies, its ledger from logs."""
    faults = "launcher_killed,api_reply_cut,api_nameless"
    with LocalCluster(tmp_path / "cluster") as cluster:
        options = ("--tasks", "20", "--duration", "10", "--dir", str(tmp_path), "--json")
        options += ("--kubeconfig", str(cluster.kubeconfig), "--faults", faults)
        report = kept(soak(*options), tmp_path)
    assert set(report["faults"]) <= set(faults.split(","))
    assert report["verdict"]["executed"] > 10


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


def test_another_cluster_does_not_misbehave_on_demand() -> None:
    assert {FAULTS[name].local for name in chosen("all", local=False)} == {False}
    with pytest.raises(UsageError, match="fault api_500 needs a local cluster"):
        chosen("redis,api_500", local=False)


@pytest.mark.parametrize(
    ("text", "names"),
    [("all", list(KINDS)), ("work", ["work"]), ("poison,late", ["poison", "late"])],
)
def test_names_of_kinds_of_tasks(text: str, names: list[str]) -> None:
    assert chosen_kinds(text) == names


def test_a_kind_of_task_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no kind of task 'typo'; there are: work, "):
        chosen_kinds("work,typo")
