"""The bench at a size at which its figures mean nothing: that it measures, not how fast it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kbroker.bench.registry import FIGURES_OF
from kbroker.local.cluster_process import LocalCluster


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kbroker", "bench", *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def document(folder: Path, *runs: str) -> dict[str, Any]:
    """What was written, with every figure of these runs and no other."""
    written: dict[str, Any] = json.loads((folder / "bench.json").read_text())
    assert set(written["figures"]) == {name for run in runs for name in FIGURES_OF[run]}
    for figure in written["figures"].values():
        assert figure["values"]
        assert figure["lowest"] <= figure["median"] <= figure["highest"]
    ElementTree.parse(folder / "bench.svg")
    return written


def test_in_local_clusters(tmp_path: Path) -> None:
    runs = ("latency", "in_flight", "relist", "backlog")
    options = ("--quick", "--json", "--output", str(tmp_path), "--only", ",".join(runs))
    done = bench(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    written = document(tmp_path, *runs)
    assert json.loads(done.stdout) == written
    assert written["notes"]["backlog_taken_out"] > 0


def test_on_a_given_cluster(tmp_path: Path) -> None:
    """The bench plays its pods, which nobody runs there, and leaves nothing."""
    runs = ("launch", "end_to_end", "quiet")
    options = ["--quick", "--verbose", "--output", str(tmp_path), "--only", ",".join(runs)]
    with LocalCluster(tmp_path / "cluster") as cluster:
        options += ["--kubeconfig", str(cluster.kubeconfig), "--server-pid", str(cluster.pid)]
        done = bench(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert cluster.admin.get("/api/v1/namespaces/default/pods")["items"] == []
    figures = document(tmp_path, *runs)["figures"]
    assert "process ids: launchers " in done.stderr
    last = [line.partition("=") for line in done.stdout.splitlines()[-len(figures) :]]
    assert [name for name, _, _ in last] == list(figures)
    assert all(float(value) > 0 for _, _, value in last)


def test_an_unknown_figure() -> None:
    done = bench("--only", "speed")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "kbroker: error: no figure or run 'speed'; see: kbroker bench --list"
    ]


def test_an_interpreter_without_airflow(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho \"ModuleNotFoundError: no 'airflow'\" >&2; exit 1\n")
    interpreter.chmod(0o755)
    done = bench("--airflow-python", str(interpreter))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no 'airflow'" in line
    assert line.endswith(
        "pip install 'kbroker[airflow]' apache-airflow-providers-cncf-kubernetes there"
    )
