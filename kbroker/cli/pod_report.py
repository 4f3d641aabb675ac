"""What Kubernetes says about one pod: its state, its events, the end of its log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from kbroker.errors import KbrokerError, MissingExtraError
from kbroker.kube_config import KubeConfig
from kbroker.kube_events import KubeEvent, kube_events

_WITHIN = 10.0  # seconds, whatever the cluster does


@dataclass(frozen=True, slots=True)
class PodReport:
    """What could be found out.

    Attributes:
        problem: why there is no more; "" where nothing is missing.
        phase: of the pod; "" where there is no pod.
        node: where it is bound.
        created: its creationTimestamp.
        scheduled: when it was bound to its node.
        started: when its base container started.
        finished: when its base container ended.
        events: what was reported about it, the oldest first.
        log: its last lines.
    """

    problem: str = ""
    phase: str = ""
    node: str = ""
    created: str = ""
    scheduled: str = ""
    started: str = ""
    finished: str = ""
    events: tuple[KubeEvent, ...] = ()
    log: tuple[str, ...] = field(default=(), repr=False)


def pod_report(config: KubeConfig, namespace: str, name: str, lines: int) -> PodReport:
    """Ask Kubernetes; a cluster that cannot be asked is a `problem`, never an error."""
    try:
        return asyncio.run(_within(config, namespace, name, lines))
    except TimeoutError:
        return PodReport(f"Kubernetes did not answer within {_WITHIN:.0f} s")
    except ModuleNotFoundError:
        return PodReport(str(MissingExtraError("asking Kubernetes", "kubernetes")))
    except KbrokerError as error:
        return PodReport(str(error))


async def _within(config: KubeConfig, namespace: str, name: str, lines: int) -> PodReport:
    async with asyncio.timeout(_WITHIN):
        return await _ask(config, namespace, name, lines)


async def _ask(config: KubeConfig, namespace: str, name: str, lines: int) -> PodReport:
    from kbroker.kube_client import ApiError, KubeClient  # noqa: PLC0415 - an extra

    kube = await KubeClient.connect(config.kubernetes)
    try:
        problem, pod = "", {}
        try:
            pod = orjson.loads(await kube.get_pod(namespace, name))
        except ApiError as error:
            if error.status != 404:
                return PodReport(f"{kube.server}: {error}")
            problem = f"pod {name} does not exist any more in namespace {namespace}"
        try:
            uid = pod.get("metadata", {}).get("uid", "")
            events = kube_events(await kube.pod_events(namespace, name, uid))
        except ApiError as error:
            events, problem = (), problem or f"its events cannot be read: {error}"
        log = b""
        if pod:
            try:
                log = b"".join([piece async for piece in kube.pod_log(namespace, name, tail=lines)])
            except ApiError as error:
                if error.status != 400:  # which it is for a container that has not started
                    problem = problem or f"its log cannot be read: {error}"
        text = log.decode(errors="replace").splitlines()
        return PodReport(problem, *_times(pod), events=events, log=tuple(text))
    finally:
        await kube.close()


def _times(pod: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    status = pod.get("status", {})
    scheduled = [
        one.get("lastTransitionTime") or ""
        for one in status.get("conditions") or ()
        if one.get("type") == "PodScheduled" and one.get("status") == "True"
    ]
    states = [
        one.get("state") or {}
        for one in status.get("containerStatuses") or ()
        if one.get("name") == "base"
    ]
    state = states[0] if states else {}
    ended = state.get("terminated") or {}
    running = state.get("running") or ended
    return (
        status.get("phase", "") if pod else "",
        pod.get("spec", {}).get("nodeName") or "",
        pod.get("metadata", {}).get("creationTimestamp") or "",
        scheduled[0] if scheduled else "",
        running.get("startedAt") or "",
        ended.get("finishedAt") or "",
    )
