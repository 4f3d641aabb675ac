"""Ask Airflow's PodGenerator what its merge gives, and store it for the test.

In an environment of its own, because it needs Airflow and its Kubernetes client:

    python3 -m venv airflow-venv
    airflow-venv/bin/pip install 'apache-airflow==3.3.*' \
        'apache-airflow-providers-cncf-kubernetes==10.25.*'
    airflow-venv/bin/python tests/unit/airflow_merge_cases/regenerate.py

writes results.json: for every case of cases.yaml the pod that `reconcile_pods` makes.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import ApiClient

HERE = Path(__file__).parent

if __name__ == "__main__":
    document = yaml.safe_load((HERE / "cases.yaml").read_text(encoding="utf-8"))
    api = ApiClient()
    lines = []
    for name, case in document["cases"].items():
        base = PodGenerator.deserialize_model_dict(document["bases"][case["base"]])
        patch = case["patch"]
        if "spec" in patch:
            # The client's model demands the field; an empty list says nothing.
            patch["spec"].setdefault("containers", [])
        override = PodGenerator.deserialize_model_dict(patch)
        result = api.sanitize_for_serialization(PodGenerator.reconcile_pods(base, override))
        lines.append(f"{json.dumps(name)}: {json.dumps(result, separators=(',', ':'))}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (HERE / "results.json").write_text(text, encoding="utf-8")
