"""Ask kubectl what a strategic merge gives, and store it for the test.

    python tests/unit/strategic_merge_cases/regenerate.py

writes results.json: for every case of cases.yaml kubectl's result, or its error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
KUBECTL = Path(sys.executable).with_name("kubectl")


def load_cases() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Every case's name → (base, patch)."""
    document = yaml.safe_load((HERE / "cases.yaml").read_text(encoding="utf-8"))
    return {
        name: (document["bases"][case["base"]], case["patch"])
        for name, case in document["cases"].items()
    }


def ask_kubectl(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """{"result": pod} or {"error": message}, as kubectl says."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(base, file)
        file.flush()
        command = [KUBECTL, "patch", "--local", "--type=strategic", "-f", file.name]
        command += ["-p", json.dumps(patch), "-o", "json"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return {"error": answer.stderr.strip()}
    return {"result": json.loads(answer.stdout)}


if __name__ == "__main__":
    lines = [
        f"{json.dumps(name)}: {json.dumps(ask_kubectl(*case), separators=(',', ':'))}"
        for name, case in load_cases().items()
    ]
    # One line a case keeps the differences of a new kubectl readable.
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
