"""What everything that works on a cluster is configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from kbroker.bench import tasks
from kbroker.bench.site import Site
from kbroker.kube_config import KubeConfig


def config_of(
    site: Site, folder: Path, deployment: str, *, run: bool = False, **more: Any
) -> KubeConfig:
    """The configuration of everything that works on a cluster.

    Args:
        site: the cluster.
        folder: for the pod template; made if it is not there.
        deployment: whose pods.
        run: whether pods are run, or only created.
        more: further settings, by section.key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"template-{'run' if run else 'created'}.yaml"
    runs = None if site.plays else tasks.PLAYER
    path.write_bytes(orjson.dumps(tasks.template(runs if run else tasks.NOBODY)))  # JSON is YAML
    values = {
        "core.deployment": deployment,
        "kubernetes.kubeconfig": str(site.kubeconfig),
        "kubernetes.namespace": site.namespace,
        "kubernetes.pod_template_file": str(path),
        **more,
    }
    return KubeConfig.from_values(**values)
