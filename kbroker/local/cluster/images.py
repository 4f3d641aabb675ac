"""Images: none is ever pulled; some are as if they could not be, or not at once.

Only names under `.invalid`, which never resolve (RFC 2606), fail to be pulled. Of these,
`throttled.invalid/…` is pulled in the end: the first pulls fail because the kubelet itself
holds them back, "pull QPS exceeded", as where many pods start at once
(`registryPullQPS` of https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/).
"""

from __future__ import annotations

from kbroker.local.cluster.store import Object

_THROTTLED = "throttled.invalid"
_REFUSED = 3  # pulls of a throttled image that fail


def pull_problem(container: Object, pulls: int) -> str:
    """Why a container's image cannot be pulled, in a kubelet's words; "" if it can.

    Args:
        container: of the pod's specification.
        pulls: how many pulls have failed before.
    """
    host = _unknown_host(container)
    if not host:
        return ""
    if host == _THROTTLED:
        return "pull QPS exceeded" if pulls < _REFUSED else ""
    image = container["image"]
    return (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
        f"dial tcp: lookup {host}: no such host"
    )


def pulled_later(container: Object) -> bool:
    """Whether it helps to pull again."""
    return _unknown_host(container) == _THROTTLED


def _unknown_host(container: Object) -> str:
    """The registry of an image that is not there yet; "" for any other image."""
    host, slash, _ = container["image"].partition("/")
    host = host.partition(":")[0]
    pulled = slash and host.endswith(".invalid") and container["imagePullPolicy"] != "Never"
    return host if pulled else ""
