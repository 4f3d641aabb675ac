"""Every command of the documentation, run as it stands there, page by page.

A page's `sh` blocks are one script: what one block starts, the next one uses.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker import keys_page
from kbroker.cli.task_file import read_tasks
from kbroker.local.cluster_process import LocalCluster
from kbroker.pod_spec import load_template
from tests.integration.stack import ROOT, running

DOCS = ROOT / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
# Commands for the reader alone, each with what runs it instead.
FOR_THE_READER = {
    "pip install 'kbroker[local]'",  # make venv
    "pip install 'kbroker[airflow]'",  # make test-airflow, and its tests those of `airflow`
    "pip install 'kbroker[kubernetes]'",  # make venv
    "airflow providers list",
    "airflow config list --section kbroker --include-descriptions",
    "airflow kbroker ps",
    "KUBECONFIG=~/.kube/config make conformance",  # make test, against the local cluster
}
STAND_IN = ROOT / "tests" / "integration" / "redis_cli.py"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a checkout looks to a reader, with the commands on the path."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    commands = tmp_path / "bin"
    commands.mkdir()
    interpreter = Path(sys.executable)
    for name, line in {
        "kbroker": f'exec {interpreter} -m kbroker "$@"',
        "python": f'exec {interpreter} "$@"',
        "kubectl": f'exec {interpreter.parent / "kubectl"} "$@"',
        "redis-cli": f'exec {interpreter} {STAND_IN} "$@"',
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    return tmp_path


def run_script(script: str, folder: Path, **env: str) -> str:
    """Run it as one bash session; what it left running is killed."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
    path = f"{folder / 'bin'}:{plain['PATH']}"
    process = subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(ROOT), "PATH": path, "HOME": str(folder), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = folder / "output"
    try:
        # What runs in the background holds the pipe open for as long as it lives.
        with output.open("w") as kept:
            copying = subprocess.Popen(["cat"], stdin=process.stdout, stdout=kept)
            code = process.wait(100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        copying.wait(20)
    assert code == 0, output.read_text()
    return output.read_text()


@pytest.fixture(scope="module")
def local_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One cluster for all pages: none of them uses what another one creates in it."""
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(local_cluster: LocalCluster, redis_url: str) -> dict[str, str]:
    """The variables of a reader who has a Redis and a cluster."""
    return {"KBROKER__BROKER__URL": redis_url, "KUBECONFIG": str(local_cluster.kubeconfig)}


def test_the_quickstart(folder: Path) -> None:
    marker = Path("/tmp/kbroker-flaky")
    marker.unlink(missing_ok=True)
    try:
        said = run_script("".join(blocks("quickstart.md", "sh")), folder)
    finally:
        marker.unlink(missing_ok=True)
    assert re.search(r"^flaky +success +0? +2 ", said, re.MULTILINE)
    assert "flaky: try 1 failed, trying again" in said
    assert '"state": "success"' in (folder / "result.json").read_text()


def test_the_readmes_own_tasks(folder: Path, cluster: dict[str, str]) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Your own tasks") : readme.index("## Look inside")]
    local, own = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    run_script(local, folder)
    assert own.count("redis://redis:6379/0") == 1
    own = own.replace("redis://redis:6379/0", cluster["KBROKER__BROKER__URL"])
    run_script(own, folder, KUBECONFIG=cluster["KUBECONFIG"])


@pytest.mark.parametrize(
    "page",
    [
        "airflow.md",
        "command-line.md",
        "configuration.md",
        "guarantees.md",
        "pod-templates.md",
        "real-cluster.md",
    ],
)
def test_the_commands_of_a_page_with_a_cluster(
    page: str, folder: Path, cluster: dict[str, str]
) -> None:
    run_script("".join(blocks(page, "sh")), folder, **cluster)


def test_the_commands_that_look_at_a_redis_key(folder: Path, redis_url: str) -> None:
    lines = "".join(blocks("redis-keys.md", "sh")).splitlines()
    prepared = "redis-cli XGROUP CREATE '{kbroker}:launch.default.normal' launchers 0 MKSTREAM"
    script = "\n".join([prepared, *lines]).replace("redis-cli ", f"redis-cli -u {redis_url} ")
    said = run_script(script, folder)
    assert "(error)" not in said


def test_the_page_of_redis_keys_is_the_headers() -> None:
    assert (DOCS / "redis-keys.md").read_text() == keys_page.page(), (
        "write it anew: python -m kbroker.keys_page > docs/redis-keys.md"
    )


def test_the_python_of_the_quickstart(tmp_path: Path) -> None:
    (program,) = blocks("quickstart.md", "python")
    with running(tmp_path, launchers=1) as stack:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, **stack.config().as_env()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert stack.redis.zcard(stack.keys.tasks) == 0


def test_the_examples_of_pod_templates(tmp_path: Path) -> None:
    (template,) = blocks("pod-templates.md", "yaml")
    (tmp_path / "template.yaml").write_text(template)
    pod = load_template(str(tmp_path / "template.yaml"))
    assert pod["spec"]["serviceAccountName"] == "tasks"
    (task,) = blocks("pod-templates.md", "json")
    (tmp_path / "tasks.jsonl").write_text(task.replace("\n", " "))
    (spec,) = read_tasks(str(tmp_path / "tasks.jsonl"))
    assert spec.id == "with-sidecar"


def test_no_command_is_left_out() -> None:
    """Commands stand in `sh` blocks, which are run, or are named above."""
    run = {
        "airflow.md",
        "command-line.md",
        "configuration.md",
        "guarantees.md",
        "pod-templates.md",
        "quickstart.md",
        "real-cluster.md",
        "redis-keys.md",
    }
    indented = set()
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"^ +```.*?^ +```", "", text, flags=re.DOTALL | re.MULTILINE)
        indented |= {line.strip() for line in text.splitlines() if line.startswith("    ")}
        assert not blocks(page, "(?:bash|shell|console)"), f"{page}: mark commands as sh"
        assert page in run or not blocks(page, "sh"), f"{page}: its commands are run by no test"
    assert indented == FOR_THE_READER


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_pages_are_all_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if f"docs/{page}" not in readme] == []
