"""A bare HTTPS client of the local cluster: what is sent and answered, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from kbroker.local.cluster_process import LocalCluster

Object = dict[str, Any]


def poll(what: str, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait until the condition is true; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Answer:
    """A status and a body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Object:
        """The body, read."""
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def message(self) -> str:
        """The message of a Status."""
        return str(self.json["message"])


class Client:
    """Talks to one namespace with one token."""

    def __init__(
        self, cluster: LocalCluster, namespace: str = "default", token: str | None = None
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.token = cluster.token if token is None else token
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
        self.context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        self.host = urlsplit(cluster.url).netloc

    def path(self, resource: str, name: str = "", **query: Any) -> str:
        """The path of a resource of this namespace."""
        path = f"/api/v1/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")
        return path + ("?" + urlencode(query) if query else "")

    def call(
        self, method: str, path: str, body: Any = None, *, seconds: float = 20.0, **headers: str
    ) -> Answer:
        """One request."""
        with contextlib.closing(self.connect(seconds)) as connection:
            self.send(connection, method, path, body, **headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def connect(self, seconds: float = 20.0) -> http.client.HTTPSConnection:
        """A connection of its own."""
        return http.client.HTTPSConnection(self.host, context=self.context, timeout=seconds)

    def send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: Any = None,
        **headers: str,
    ) -> None:
        """Send a request, without waiting for the answer."""
        sent = {"Content-Type": "application/json"}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, sent)

    def get(self, resource: str, name: str = "", **query: Any) -> Answer:
        """GET."""
        return self.call("GET", self.path(resource, name, **query))

    def items(self, resource: str = "pods", **query: Any) -> list[str]:
        """The names in a list, in order."""
        answer = self.get(resource, **query)
        assert answer.status == 200, answer.body
        return [item["metadata"]["name"] for item in answer.json["items"]]

    def create(self, content: Object, resource: str = "pods") -> Object:
        """Create, and expect it to succeed."""
        answer = self.call("POST", self.path(resource), content)
        assert answer.status == 201, answer.body
        return answer.json

    def unscheduled(self, name: str, **spec: Any) -> Object:
        """A pod that no scheduler looks at: nobody but its owner changes it."""
        return self.create(waiting(name, **spec))

    def refused(self, content: Object, resource: str = "pods") -> Answer:
        """Create, and expect a refusal."""
        answer = self.call("POST", self.path(resource), content)
        assert answer.status >= 400, answer.body
        return answer

    def patch(self, name: str, content: Any, kind: str = "merge", resource: str = "pods") -> Answer:
        """PATCH."""
        return self.call(
            "PATCH",
            self.path(resource, name),
            content,
            Content_Type=f"application/{kind}-patch+json",
        )

    def delete(self, name: str, options: Object | None = None, resource: str = "pods") -> Answer:
        """DELETE."""
        return self.call("DELETE", self.path(resource, name), options)

    def pod(self, name: str) -> Object:
        """The pod as it stands."""
        answer = self.get("pods", name)
        assert answer.status == 200, answer.body
        return answer.json

    def until(self, name: str, condition: Callable[[Object], Any], seconds: float = 10.0) -> Object:
        """Wait until the pod is as it should be; the pod."""
        deadline = time.monotonic() + seconds
        while True:
            pod = self.pod(name)
            if condition(pod):
                return pod
            assert time.monotonic() < deadline, json.dumps(pod["status"], indent=1)
            time.sleep(0.02)

    def phase(self, name: str, *phases: str) -> Object:
        """Wait until the pod is in one of these phases; the pod."""
        return self.until(name, lambda pod: pod["status"]["phase"] in phases)

    def log(self, name: str, **query: Any) -> Answer:
        """The log of a pod."""
        return self.call("GET", self.path("pods", f"{name}/log", **query))

    @contextlib.contextmanager
    def watch(self, resource: str = "pods", seconds: float = 10.0, **query: Any) -> Iterator[Watch]:
        """An open watch."""
        with contextlib.closing(self.connect(seconds)) as connection:
            self.send(connection, "GET", self.path(resource, watch="1", **query))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield Watch(response)


class Watch:
    """The lines of an open watch."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def __iter__(self) -> Iterator[Object]:
        while line := self.response.readline():
            yield json.loads(line)

    def take(self, count: int) -> list[tuple[str, str]]:
        """The next events: type and name."""
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in self.events(count)]

    def events(self, count: int) -> list[Object]:
        """The next events, whole."""
        return list(itertools.islice(self, count))

    def until(self, kind: str, condition: Callable[[Object], Any] = bool) -> Object:
        """The object of the next event of a type for which the condition holds."""
        for event in self:
            if event["type"] == kind and condition(event["object"]):
                return event["object"]  # type: ignore[no-any-return]
        raise AssertionError(f"the watch ended before {kind}")


def pod(name: str, *command: str, **spec: Any) -> Object:
    """A pod of one container `base` that does not restart."""
    labels = spec.pop("labels", {})
    annotations = spec.pop("annotations", {})
    container = {
        "name": "base",
        "image": spec.pop("image", "busybox"),
        "command": list(command or ("true",)),
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def waiting(name: str, **spec: Any) -> Object:
    """A pod that no scheduler looks at."""
    return pod(name, schedulerName="nobody", **spec)


def state(found: Object, container: str = "base") -> Object:
    """The state of one of a pod's containers."""
    status = found["status"]
    for given in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
        if given["name"] == container:
            return given["state"]  # type: ignore[no-any-return]
    return {}


def condition(found: Object, kind: str) -> Object:
    """One of a pod's conditions."""
    return next((c for c in found["status"].get("conditions", []) if c["type"] == kind), {})
