"""A server that has forgotten a version says 410, in one of three places, and a watcher relists.

No request makes an API server forget. So what a server says of its very first version is
held against what it may say at all, and the documented answers
(https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses) are
given by a proxy of the suite's own in front of it.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from kbroker.kube_client import KubeClient
from kbroker.kube_config import KubeConfig
from kbroker.pod import Pod
from kbroker.reflector import Reflector
from kbroker.settings import KubernetesSettings, WatcherSettings
from kbroker.watcher import KubernetesJobWatcher
from tests.conformance.cluster import Object, poll
from tests.conformance.pods import Pods
from tests.conformance.proxy import Proxy

EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "too old resource version: 1 (2)",
    "reason": "Expired",
    "code": 410,
}
SETTINGS = WatcherSettings(page_size=2, watch_timeout=30, backoff_base=0.05)


def test_history_is_complete_or_refused(pods: Pods) -> None:
    pod = pods.create()
    watch = pods.watch(1)

    def errors() -> list[Object]:
        return [event["object"] for event in watch.told if event["type"] == "ERROR"]

    poll("the watch says something", lambda: watch.error or errors() or watch.events)
    if watch.error is not None:
        assert (watch.error.status, watch.error.failure.reason) == (410, "Expired")
    elif errors():
        (status,) = errors()
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
        poll("the watch ends", lambda: watch.ended)
        assert watch.events == []
    else:
        assert watch.events[0] == ("ADDED", pod.name)
    query = {"resourceVersion": "1", "resourceVersionMatch": "Exact"}
    answer = pods.cluster.call("GET", pods.path("", **query))
    if answer.status == 410:
        assert answer.json["reason"] == "Expired"
    else:
        assert answer.expect(200)["items"] == []
        assert answer.json["metadata"]["resourceVersion"] == "1"


class Picture:
    """What a reflector's consumer knows; errors are judged by the watcher's own rule."""

    def __init__(self) -> None:
        self.pods: dict[str, int] = {}
        self.begun = self.complete = 0
        self._listed: dict[str, int] = {}
        watcher = KubernetesJobWatcher("", queue.Queue(), None, "", config=KubeConfig())
        self._judge = watcher.process_error

    async def relisting(self, new_generation: bool) -> None:
        self.begun += 1
        self._listed = {}

    async def page(self, pods: Sequence[Pod]) -> None:
        self._listed.update((pod.name, pod.resource_version) for pod in pods)

    async def listed(self, version: int) -> None:
        self.complete += 1
        self.pods = self._listed

    async def events(self, events: Sequence[tuple[str, Pod]]) -> None:
        for kind, pod in events:
            if kind == "DELETED":
                self.pods.pop(pod.name, None)
            else:
                self.pods[pod.name] = pod.resource_version

    async def bookmark(self, version: int) -> None:
        pass

    def process_error(self, event: Mapping[str, Any]) -> str:
        return self._judge(event)


@pytest.mark.parametrize("where", ["watch's status", "watch's event", "continue token"])
def test_what_a_gap_hid_is_found_by_a_list(pods: Pods, tmp_path: Path, where: str) -> None:
    loop, kube = pods.cluster.loop, pods.kube
    gone, *_ = [pods.create() for _ in range(3)]
    late = pods.manifest()
    asked = "continue" if where == "continue token" else "watch"
    lists = (2, 1) if asked == "continue" else (2, 2)  # begun, complete
    said: list[str] = []

    async def forget(request: web.BaseRequest) -> web.StreamResponse | None:
        if said or asked not in request.rel_url.query:
            return None
        said.append(where)
        await kube.delete_pod(pods.namespace, gone.name, uid=gone.uid)
        await kube.create_pod(pods.namespace, late)
        if where == "watch's event":
            line = orjson.dumps({"type": "ERROR", "object": EXPIRED}) + b"\n"
            return web.Response(body=line, content_type="application/json")
        return web.json_response(EXPIRED, status=410)

    with Proxy(pods.cluster, tmp_path) as proxy:
        proxy.intercept = forget
        through = loop.run(KubeClient.connect(KubernetesSettings(kubeconfig=proxy.kubeconfig)))
        picture = Picture()
        reflector = Reflector(through, pods.namespace, pods.selector, picture, SETTINGS)
        reflecting = loop.start(reflector.run(None))
        try:
            poll("it lists again", lambda: (picture.begun, picture.complete) == lists)
            names = {late["metadata"]["name"], *pods.names()}
            assert set(picture.pods) == names
            assert gone.name not in names
            # And it goes on watching.
            pods.create()
            poll("the next pod is told", lambda: set(picture.pods) == set(pods.names()))
        finally:
            loop.cancel(reflecting)
            loop.run(through.close())
    assert said == [where]
    assert (picture.begun, picture.complete) == lists
