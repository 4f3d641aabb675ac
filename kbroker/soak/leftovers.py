"""What may be left of a soak in the cluster and in Redis when everything is over."""

from __future__ import annotations

import time

from kbroker.kube_client import ApiError
from kbroker.soak.stack import SoakStack

# Finished pods hold their names for a create window; those without an owner go after
# `watcher.orphan_after`.
_PATIENCE = 30.0
_LOOK_EVERY = 0.5


class Leftovers:
    """Looks until nothing is left that should go.

    Args:
        stack: whose.
    """

    def __init__(self, stack: SoakStack) -> None:
        self._stack = stack
        config, keys = stack.config, stack.keys
        place = (config.kubernetes.cluster, config.kubernetes.namespace)
        # What an installation keeps without an expiry, because it describes the installation.
        self._base = {
            keys.watch(*place),
            keys.delete_queue(config.kubernetes.cluster),
            keys.dead,
            *(
                keys.launch_queue(config.kubernetes.cluster, priority)
                for priority in config.broker.priorities
            ),
        }

    def wait(self) -> list[str]:
        """What is still left after some patience, in words."""
        config = self._stack.config
        patience = _PATIENCE + config.kubernetes.create_window + 2 * config.watcher.orphan_after
        deadline = time.monotonic() + patience
        while True:
            self._stack.keep_up()
            left = [*self._pods(), *self._keys()]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(_LOOK_EVERY)

    def _pods(self) -> list[str]:
        try:
            return [f"pod {pod.name} is {pod.phase}" for pod in self._stack.pods.all()]
        except ApiError as error:
            # A crowd is perhaps still being removed: there is patience for that.
            return [f"pods that nobody can list: {error}"]

    def _keys(self) -> list[str]:
        redis = self._stack.redis
        left = []
        for raw in redis.scan_iter(count=1000):
            key = raw.decode() if isinstance(raw, bytes) else raw
            if redis.ttl(raw) == -1 and key not in self._base:
                left.append(f"key {key}")
        queues = self._base - {self._stack.keys.dead}
        waiting = [key for key in queues if redis.type(key) == b"stream" and redis.xlen(key)]
        return left + [f"messages in {key}" for key in waiting]
