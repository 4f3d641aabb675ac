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
        [sys.executable, "-m", "kbroker", "demo", "--tasks", str(tasks)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = re.findall(r"^\S+ +(success|failed) +", done.stdout, re.MULTILINE)
    assert len(rows) == len(tasks.read_text().splitlines())
    assert rows.count("failed") == 3
    assert re.search(r"^no-such-image +failed +image_pull +1 +2 ", done.stdout, re.MULTILINE)
    assert re.search(r"^second-try +success +0 +2 +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^too-slow +failed +deadline_exceeded ", done.stdout, re.MULTILINE)
    logs = re.search(r"^logs of tasks: (\S+?)/NAMESPACE", done.stderr, re.MULTILINE)
    assert logs is not None
    said = [p.read_text() for p in (tmp_path / logs[1]).rglob("base.log")]
    assert "greeting: hello from the pod\n" in said
    assert children_of(tmp_path) == []
