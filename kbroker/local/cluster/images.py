"""Images: none is ever pulled; some are as if they could not be.

Only names under `.invalid`, which never resolve (RFC 2606), fail to be pulled.
"""

from __future__ import annotations

from kbroker.local.cluster.store import Object


def pull_problem(container: Object) -> str:
    """Why a container's image cannot be pulled, in a container runtime's words; "" if it can."""
    image = container["image"]
    host, slash, _ = image.partition("/")
    host = host.partition(":")[0]
    if not slash or not host.endswith(".invalid") or container["imagePullPolicy"] == "Never":
        return ""
    return (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
        f"dial tcp: lookup {host}: no such host"
    )
