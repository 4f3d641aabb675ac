"""The pods of a soak, as the API server has them: looked at and harmed from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.naming import deployment_selector
from kbroker.pod import Pod

T = TypeVar("T")

_PAGE = 500


class PodView:
    """The pods of one deployment in one namespace, past every proxy.

    Args:
        config: how to get to the cluster, whose pods, and where.
    """

    def __init__(self, config: KubeConfig) -> None:
        self._settings = config.kubernetes
        self._selector = deployment_selector(config.core.deployment)

    def all(self) -> list[Pod]:
        """Every pod that exists.

        Raises:
            ApiError, ClusterError: the API server does not answer, or refuses.
        """
        return self._with_client(self._list)

    def delete(self, pod: Pod) -> bool:
        """Delete a pod as somebody else would; whether it was still there."""

        async def request(client: KubeClient) -> bool:
            try:
                await client.delete_pod(self._settings.namespace, pod.name, uid=pod.uid, grace=0)
            except ApiError as error:
                if error.status in (404, 409):
                    return False
                raise
            return True

        return self._with_client(request)

    async def _list(self, client: KubeClient) -> list[Pod]:
        found: list[Pod] = []
        token: str | None = None
        while True:
            page = await client.list_pods(
                self._settings.namespace, self._selector, limit=_PAGE, continue_token=token
            )
            found += page.items
            token = page.metadata.continue_token
            if not token:
                return found

    def _with_client(self, step: Callable[[KubeClient], Awaitable[T]]) -> T:
        async def run() -> T:
            client = await KubeClient.connect(self._settings)
            try:
                return await step(client)
            finally:
                await client.close()

        return asyncio.run(run())
