"""The pods of a soak, as the API server has them: looked at and harmed from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from kbroker.kube_client import ApiError, KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.naming import annotations_for, deployment_selector, labels_for, pod_name
from kbroker.pod import BASE, Pod
from kbroker.task import Launch, TaskKey

T = TypeVar("T")

_PAGE = 500
_AT_ONCE = 25
_AGAIN_AFTER = 0.5
CROWD = "crowd"


async def list_all(client: KubeClient, config: KubeConfig) -> list[Pod]:
    """Every pod of a deployment in its namespace.

    Raises:
        ApiError: the API server does not answer, or refuses.
    """
    selector = deployment_selector(config.core.deployment)
    found: list[Pod] = []
    token: str | None = None
    while True:
        page = await client.list_pods(
            config.kubernetes.namespace, selector, limit=_PAGE, continue_token=token
        )
        found += page.items
        token = page.metadata.continue_token
        if not token:
            return found


def _one_of_crowd(deployment: str, number: int) -> dict[str, Any]:
    attempt = Launch(deployment, TaskKey(CROWD, str(number), "soak"), f"crowd/{number}")
    first = attempt.attempt(1)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(first),
            "labels": labels_for(first, CROWD),
            "annotations": annotations_for(first, CROWD),
        },
        "spec": {
            "schedulerName": CROWD,
            "restartPolicy": "Never",
            "containers": [{"name": BASE, "image": "busybox:1.37", "command": ["true"]}],
        },
    }


class PodView:
    """The pods of one deployment in one namespace, past every proxy.

    Args:
        config: how to get to the cluster, whose pods, and where.
    """

    def __init__(self, config: KubeConfig) -> None:
        self._config = config
        self._settings = config.kubernetes

    def all(self) -> list[Pod]:
        """Every pod that exists.

        Raises:
            ApiError, ClusterError: the API server does not answer, or refuses.
        """
        return self._with_client(lambda client: list_all(client, self._config))

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

    def create_crowd(self, size: int) -> int:
        """Create pods of the deployment, of an executor that does not exist.

        Nothing schedules them, and they are labelled as a crowd. Returns how many came.
        """

        async def request(client: KubeClient) -> int:
            numbers = iter(range(size))

            async def work() -> int:
                came = 0
                for number in numbers:
                    manifest = _one_of_crowd(self._config.core.deployment, number)
                    with contextlib.suppress(ApiError):
                        await client.create_pod(self._settings.namespace, manifest)
                        came += 1
                return came

            return sum(await asyncio.gather(*(work() for _ in range(_AT_ONCE))))

        return self._with_client(request)

    def remove_crowd(self) -> None:
        """Delete the crowd; goes on until it is gone."""

        async def request(client: KubeClient) -> None:
            while crowd := await self._crowd(client):
                pods = iter(crowd)

                async def work(pods: Iterator[Pod] = pods) -> None:
                    for pod in pods:
                        with contextlib.suppress(ApiError):
                            await client.delete_pod(pod.namespace, pod.name, uid=pod.uid)

                await asyncio.gather(*(work() for _ in range(_AT_ONCE)))

        self._with_client(request)

    async def _crowd(self, client: KubeClient) -> list[Pod]:
        while True:
            with contextlib.suppress(ApiError):
                found = await list_all(client, self._config)
                return [pod for pod in found if pod.name.startswith(f"{CROWD}-")]
            await asyncio.sleep(_AGAIN_AFTER)

    def _with_client(self, step: Callable[[KubeClient], Awaitable[T]]) -> T:
        async def run() -> T:
            client = await KubeClient.connect(self._settings)
            try:
                return await step(client)
            finally:
                await client.close()

        return asyncio.run(run())
