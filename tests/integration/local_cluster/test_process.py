"""The cluster as a process: how it starts, stops, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbroker.errors import ClusterError
from kbroker.local.cluster_process import LocalCluster
from tests.integration.local_cluster.client import Client, pod, poll
from tests.integration.local_cluster.test_pods import alive


def start_container(cluster: LocalCluster, folder: Path) -> list[int]:
    """A pod whose shell has a child in the group and one that left it; the three pids."""
    script = (
        f"sleep 61 & echo $! >> {folder}/pids; setsid sleep 62 & "
        f"echo $$$$ >> {folder}/pids; while :; do sleep 0.05; done"
    )
    Client(cluster).create(pod("a", "sh", "-c", script))
    Client(cluster).phase("a", "Running")
    poll("it has started", lambda: len(_pids(folder)) == 2)
    away = poll("its child left the group", lambda: _processes("sleep\x0062\x00"))
    return [*_pids(folder), *away]


def _pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def _processes(command: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_text() == command:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_stopping_ends_every_container(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "cluster").start()
    pids = start_container(cluster, tmp_path)
    assert all(map(alive, pids))
    process = cluster._process
    assert process is not None
    cluster.stop()
    assert process.returncode == 0
    assert not any(map(alive, pids))
    cluster.stop()


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_killed_cluster_leaves_no_container_behind(tmp_path: Path, group: bool) -> None:
    with LocalCluster(tmp_path / "cluster") as cluster:
        pids = start_container(cluster, tmp_path)
        assert cluster.pid is not None
        if group:
            os.killpg(cluster.pid, signal.SIGKILL)
        else:
            os.kill(cluster.pid, signal.SIGKILL)
        poll("its containers are gone", lambda: not any(map(alive, pids)))


def test_cluster_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from kbroker.local.cluster_process import LocalCluster\n"
        "print(LocalCluster(Path(sys.argv[1])).start().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    poll("the cluster is gone", lambda: not alive(pid))


def test_cluster_without_its_spawner_stops(tmp_path: Path) -> None:
    with LocalCluster(tmp_path / "cluster") as cluster:
        pids = start_container(cluster, tmp_path)[:2]
        children = Path(f"/proc/{cluster.pid}/task/{cluster.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        process = cluster._process
        assert process is not None
        assert process.wait(10) == 1
        assert "containers is gone" in cluster.log.read_text()
        poll("its containers are gone", lambda: not any(map(alive, pids)))
    for left in _processes("sleep\x0062\x00"):
        os.kill(left, signal.SIGKILL)  # nobody could know of the one that left its group


def test_announcement_and_files(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        lines = cluster.log.read_text().splitlines()
        assert lines[0] == f"local cluster ready: {cluster.url} kubeconfig={cluster.kubeconfig}"
        assert "nothing is isolated" in lines[1]
        assert cluster.url.startswith("https://127.0.0.1:")
        assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600
        keys = [p for p in tmp_path.rglob("*.pem") if stat.S_IMODE(p.stat().st_mode) != 0o600]
        assert keys == []
        assert cluster.token not in cluster.log.read_text()


@pytest.mark.parametrize("temporary", [False, True])
def test_port_that_is_taken(tmp_path: Path, temporary: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ClusterError, match=r"the local cluster does not start: .*in use"):
            LocalCluster(None if temporary else tmp_path, port=port).start()
    assert time.monotonic() - began < 10


def test_each_start_has_a_token_and_a_folder_of_its_own() -> None:
    seen = []
    for _ in range(2):
        with LocalCluster() as cluster:
            assert cluster.folder.is_dir()
            seen.append((cluster.token, cluster.folder))
        assert not cluster.folder.exists()
    assert len({token for token, _ in seen}) == len({folder for _, folder in seen}) == 2
