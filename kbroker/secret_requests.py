"""Which Secrets of service account keys an executor still has to ask for.

All configured ones where tasks run by default; where else a task runs that names
one, that one. By name only: the files are the launchers' to read.
"""

from __future__ import annotations

from kbroker.kube_config import KubeConfig
from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.message import SecretMessage
from kbroker.service_account_key import read_keys
from kbroker.tracked import Tracked


class SecretRequests:
    """Asks for each Secret once.

    Args:
        config: names the keys.
        scheduler: publishes.
    """

    def __init__(self, config: KubeConfig, scheduler: AirflowKubernetesScheduler) -> None:
        self._deployment = config.core.deployment
        self._keys = read_keys(config.kubernetes.gcp_service_account_keys)
        self._scheduler = scheduler
        place = (config.kubernetes.cluster, config.kubernetes.namespace)
        self._wanted = {self._message(place, name): None for name in self._keys}
        self._asked: dict[SecretMessage, None] = {}

    def needed(self, tracked: Tracked) -> None:
        """A task's pod may need a Secret that was not asked for yet."""
        name = tracked.message.executor_config.get("gcp_service_account_key")
        if name in self._keys:
            message = self._message(tracked.place, name)
            if message not in self._asked:
                self._wanted[message] = None

    def again(self) -> None:
        """Redis was lost, and perhaps the requests with it: ask for all anew."""
        self._wanted = {**self._asked, **self._wanted}
        self._asked = {}

    def publish(self) -> None:
        """Ask the launchers for what was not asked for yet.

        Raises:
            BrokerUnavailableError: Redis is away; nothing is forgotten.
        """
        if self._wanted:
            self._scheduler.request_secrets(self._wanted)
            self._asked.update(self._wanted)
            self._wanted = {}

    def _message(self, place: tuple[str, str], name: str) -> SecretMessage:
        return SecretMessage(self._deployment, *place, name)
