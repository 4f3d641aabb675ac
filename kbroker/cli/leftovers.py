"""What a run may leave behind in a cluster that lives on, and waiting until it is gone."""

from __future__ import annotations

import time
from typing import Any

from kbroker.event import PodEvent, PodState
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import availability, connect
from kbroker.result_stream import read_picture
from kbroker.settings import KubernetesSettings
from kbroker.stream_queue import queue_stats

_LOOK_EVERY = 0.1
# A create that is on its way shows within this time.
_QUIET_FOR = 1.0
_REMOVED_WITHIN = 35.0  # Kubernetes gives a container 30 s to end


def wait_until_gone(config: KubeConfig) -> bool:
    """Wait until nothing is to be created or removed and no pod is left that should go.

    Returns:
        False when it takes too long.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    client = connect(config.broker.url, config.broker.socket_timeout)
    # Until the end of the create window a finished pod stays, to hold its name.
    deadline = time.monotonic() + config.kubernetes.create_window + _REMOVED_WITHIN
    quiet_since = time.monotonic()
    try:
        while time.monotonic() - quiet_since < _QUIET_FOR:
            if _anything(client, config):
                quiet_since = time.monotonic() + _LOOK_EVERY
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_EVERY)
    finally:
        client.close()
    return True


def _anything(client: Any, config: KubeConfig) -> bool:
    settings, keys = config.kubernetes, RedisKeys(config.broker.prefix)
    if queue_stats(client, keys.delete_queue(settings.cluster)).length:
        return True
    with availability():
        if client.zcard(keys.parked(settings.cluster)):
            return True
    pods = read_picture(client, keys.pods(settings.cluster, settings.namespace))
    return any(should_go(pod, settings) for pod in pods.values())


def should_go(pod: PodEvent, settings: KubernetesSettings) -> bool:
    """Whether this pod is not to stay when its run is over."""
    if not pod.final:
        return True
    failed = pod.state is PodState.FAILED
    return settings.delete_worker_pods and (not failed or settings.delete_worker_pods_on_failure)
