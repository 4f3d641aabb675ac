"""What must be there before a command starts anything: Redis, the cluster, permissions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from kbroker.errors import BrokerUnavailableError, ClusterError, UsageError
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import availability, connect, place

_AGAIN_AFTER = 0.2
# What each role does to pods.
LAUNCHER_VERBS = ("create", "get", "delete", "patch")
WATCHER_VERBS = ("list", "watch", "get")


def require_redis(config: KubeConfig) -> None:
    """See that Redis is configured and answers.

    Raises:
        UsageError: no URL is configured.
        BrokerUnavailableError: it does not answer.
    """
    if not config.broker.url:
        raise UsageError(
            "no Redis is configured: set KBROKER__BROKER__URL=redis://host:6379, or for one on "
            'this machine: eval "$(kbroker local up)"'
        )
    client = connect(config.broker.url, config.broker.socket_timeout)
    try:
        with availability():
            client.ping()
    except BrokerUnavailableError as error:
        where = place(config.broker.url)
        raise BrokerUnavailableError(
            f"no Redis at {where} ({error.__cause__}): is it up, and broker.url right?"
        ) from error
    finally:
        client.close()


def require_cluster(config: KubeConfig, verbs: Sequence[str] = ()) -> None:
    """See that the cluster answers, has the namespace, and lets us do these things to pods.

    Raises:
        ClusterError: it does not; says what, where and what to do.
        MissingExtraError: the Kubernetes client is not installed.
    """
    asyncio.run(_require_cluster(config, verbs))


async def _require_cluster(config: KubeConfig, verbs: Sequence[str]) -> None:
    from kbroker.kube_client import KubeClient  # noqa: PLC0415 - an extra

    kube = await KubeClient.connect(config.kubernetes)
    try:
        await kube.check_namespace(config.kubernetes.namespace)
        for verb in verbs:
            await kube.check_access(verb, "pods", config.kubernetes.namespace)
    finally:
        await kube.close()


def within(seconds: float, *checks: Callable[[], None]) -> None:
    """Make these checks succeed in order; what is not up yet is waited for.

    Raises:
        KbrokerError: what the failing check raised last.
    """
    deadline = time.monotonic() + seconds
    for check in checks:
        while True:
            try:
                check()
                break
            except (BrokerUnavailableError, ClusterError):
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_AGAIN_AFTER)
