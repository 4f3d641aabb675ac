"""Requests for a pod's log.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from aiohttp import web

from kbroker.local.cluster.container import previous_log
from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.logs import LogFile, Stamps
from kbroker.local.cluster.node import Node
from kbroker.local.cluster.request import Call
from kbroker.local.cluster.store import Object, Store

_PULL_FAILS = ("ErrImagePull", "ImagePullBackOff")


class PodLogs:
    """Answers requests for logs.

    Args:
        store: where the pods are.
        node: where the logs are.
    """

    def __init__(self, store: Store, node: Node) -> None:
        self._store = store
        self._node = node

    async def serve(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Send a log, or follow it until its container has ended.

        Raises:
            Failure: 404, there is no such pod; 400, the container has no log yet, or there is
                no such container.
        """
        pod = self._store.get("pods", call.namespace, call.name).object
        container = _container(pod, call.query.get("container", ""))
        previous = call.flag("previous")
        path = self._node.log_file(pod, container)
        _check_there(pod, container, previous=previous)
        # While a container waits for its next run, the last one is the previous one.
        if previous and "waiting" not in _status(pod, container)["state"]:
            path = previous_log(path)
        since = call.number("sinceSeconds")
        log = LogFile(path)
        start = await asyncio.to_thread(
            log.begin,
            call.number("tailLines"),
            None if since is None else time.time_ns() - since * 1_000_000_000,
        )
        stamped: Callable[[bytes], bytes] = (
            Stamps(log, start) if call.flag("timestamps") else lambda piece: piece
        )
        if not call.flag("follow"):
            text = stamped(await asyncio.to_thread(log.read, start))
            limit = call.number("limitBytes")
            return web.Response(body=text[:limit], content_type="text/plain")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for piece in log.follow(start, lambda: self._ended(pod, container)):
                await response.write(stamped(piece))
            await response.write_eof()
        return response

    def _ended(self, pod: Object, container: str) -> bool:
        """Whether nothing more comes: the container has ended, or its pod is gone."""
        metadata = pod["metadata"]
        present = self._store.find("pods", metadata["namespace"], metadata["name"])
        if present is None or present.object["metadata"]["uid"] != metadata["uid"]:
            return True
        return "running" not in _status(present.object, container)["state"]


def _container(pod: Object, wanted: str) -> str:
    name = pod["metadata"]["name"]
    spec = pod["spec"]
    mains = [container["name"] for container in spec["containers"]]
    inits = [container["name"] for container in spec.get("initContainers") or []]
    if not wanted and len(mains) > 1:
        choices = f"choose one of: [{' '.join(mains)}]"
        if inits:
            choices += f" or one of the init containers: [{' '.join(inits)}]"
        raise Failure(400, f"a container name must be specified for pod {name}, {choices}")
    if wanted and wanted not in mains + inits:
        raise Failure(400, f"container {wanted} is not valid for pod {name}")
    return wanted or str(mains[0])


def _status(pod: Object, container: str) -> Object:
    status = pod["status"]
    for given in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        if given["name"] == container:
            found: Object = given
            return found
    return {"state": {"waiting": {"reason": "ContainerCreating"}}}


def _check_there(pod: Object, container: str, *, previous: bool) -> None:
    """There is a log.

    Raises:
        Failure: 400, in a kubelet's words.
    """
    status = _status(pod, container)
    name = pod["metadata"]["name"]
    ran_before = bool(status.get("lastState"))
    if previous:
        if not ran_before:
            raise Failure(
                400, f'previous terminated container "{container}" in pod "{name}" not found'
            )
        return
    waiting = status["state"].get("waiting")
    if waiting is None or ran_before:
        return
    reason = waiting.get("reason", "ContainerCreating")
    if reason in _PULL_FAILS:
        reason = "trying and failing to pull image"
    raise Failure(400, f'container "{container}" in pod "{name}" is waiting to start: {reason}')
