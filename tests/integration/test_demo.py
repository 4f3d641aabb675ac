"""The demo, as a new user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.test_cli import ROOT, children_of, environment


def test_the_demo_ends_as_expected_and_leaves_nothing(tmp_path: Path) -> None:
    tasks = ROOT / "config" / "examples" / "demo.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "kbroker", "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(KBROKER__KUBERNETES__NAMESPACE="elsewhere"),  # is not the demo's
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = re.findall(r"^\S+ +(success|failed) +", done.stdout, re.MULTILINE)
    assert len(rows) == len(tasks.read_text().splitlines())
    assert rows.count("failed") == 3
    assert re.search(r"^no-such-image +failed +image_pull +1 +2 ", done.stdout, re.MULTILINE)
    assert re.search(r"^second-try +success +0 +2 +2 ", done.stdout, re.MULTILINE)
    assert re.search(r"^too-slow +failed +deadline_exceeded ", done.stdout, re.MULTILINE)
    logs = re.search(r"^logs of tasks: (\S+)/TASK.log$", done.stderr, re.MULTILINE)
    assert logs is not None
    folder = tmp_path / logs[1]
    assert (folder / "environment.log").read_text() == "greeting: hello from the pod\n"
    assert (folder / "second-try.try-1.log").read_text() == "this is try 1\n"
    assert (folder / "second-try.log").read_text() == "this is try 2\n"
    # The watch, a key with colons, has to come through the console as it is.
    assert "hgetall '{kbroker}:watch:default:default'" in done.stderr
    assert children_of(tmp_path) == []
