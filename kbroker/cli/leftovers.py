"""What a run may leave behind in a cluster that lives on, and seeing that it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from kbroker.cli.journal import Journal
from kbroker.cli.task_progress import try_launch
from kbroker.event import PodEvent, PodState
from kbroker.executor import KubernetesExecutor
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.message import DeleteMessage
from kbroker.redis_client import availability, connect
from kbroker.result_stream import read_picture
from kbroker.settings import KubernetesSettings
from kbroker.stream_queue import queue_stats
from kbroker.task import Launch

_BATCH = 1000
_FINISHED = "it has finished"
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


def let_go_of_finished(executor: KubernetesExecutor, run: Journal) -> None:
    """Have the pods removed that a killed process of the run knew to have finished.

    It wrote down how they ended, and may have died before it said that they may go.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    deployment, cluster = executor.config.core.deployment, executor.config.kubernetes.cluster
    ended = [
        (
            try_launch(deployment, run.name, run.run_id, task, number).attempt(outcome.attempts),
            cluster,
            outcome.namespace,
            _FINISHED,
        )
        for task, number, outcome in run.unclosed
    ]
    for begun in range(0, len(ended), _BATCH):
        executor.scheduler.withdraw(ended[begun : begun + _BATCH])
    # From now on the watcher sees that they are unwanted. What it has seen before, when Redis
    # had lost their records, it does not look at again.
    known = {attempt.launch for attempt, *_ in ended}
    for place in {(cluster, namespace) for _, cluster, namespace, _ in ended if namespace}:
        for removal in _still_there(executor, place, known):
            executor.scheduler.delete_pod(removal)


def _still_there(
    executor: KubernetesExecutor, place: tuple[str, str], known: set[Launch]
) -> Iterator[DeleteMessage]:
    scheduler, settings = executor.scheduler, executor.config.kubernetes
    client = connect(executor.config.broker.url, executor.config.broker.socket_timeout)
    try:
        pods = read_picture(client, scheduler.keys.pods(*place))
    finally:
        client.close()
    # Their permissions are lost: one may have been given just before.
    held_until = scheduler.now_ms() + int(settings.create_window * 1000)
    for event in pods.values():
        if event.launch in known and event.uid is not None and should_go(event, settings):
            yield DeleteMessage(
                event.launch.deployment,
                *place,
                event.pod,
                event.uid,
                not_before=held_until,
                reason=_FINISHED,
            )
