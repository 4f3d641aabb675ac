"""One cluster and one namespace for the session; $KUBECONFIG says which cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kbroker.local.cluster_process import LocalCluster
from kbroker.pod_spec import DEFAULT_TEMPLATE
from tests.conformance.accounts import Accounts
from tests.conformance.cluster import Cluster
from tests.conformance.event_loop import EventLoop
from tests.conformance.flow import Flow, NewFlow
from tests.conformance.namespace import Namespace
from tests.conformance.played_node import PlayedNode
from tests.conformance.pods import SCHEDULER, Pods
from tests.integration.stack import Roles


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a kubelet, where there is none."""
    if os.environ.get("KBROKER_NO_KUBELET", "0") in ("", "0"):
        return
    without = [item for item in items if item.get_closest_marker("kubelet")]
    config.hook.pytest_deselected(items=without)
    items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def loop() -> Iterator[EventLoop]:
    """Runs all requests."""
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the administrator of the cluster under test; a local one unless another is named."""
    named = os.environ.get("KUBECONFIG")
    if named:
        yield named
        return
    with LocalCluster(tmp_path_factory.mktemp("cluster")) as local:
        yield str(local.kubeconfig)


@pytest.fixture(scope="session")
def cluster(kubeconfig: str, loop: EventLoop) -> Iterator[Cluster]:
    """The cluster under test, as its administrator."""
    cluster = Cluster(kubeconfig, loop)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def namespace(cluster: Cluster) -> Iterator[str]:
    """Name of a namespace for this session."""
    with Namespace(cluster) as made:
        yield made.name


@pytest.fixture(scope="session")
def accounts(
    cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Accounts]:
    """Service accounts in it."""
    accounts = Accounts(cluster, namespace, tmp_path_factory.mktemp("accounts"))
    yield accounts
    accounts.close()


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> PlayedNode:
    """Plays the node of its pods."""
    return PlayedNode(cluster, namespace)


@pytest.fixture
def pods(cluster: Cluster, namespace: str) -> Iterator[Pods]:
    """The pods of one case."""
    pods = Pods(cluster, namespace)
    yield pods
    pods.remove()


@pytest.fixture(scope="session")
def shipped(accounts: Accounts) -> dict[str, Cluster]:
    """The launcher and the watcher of config/kubernetes/, as the cluster lets them in."""
    return {
        name: accounts.user(accounts.ship(name), "get pods") for name in ("launcher", "watcher")
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a pod template for pods that only the suite binds."""
    content = {**DEFAULT_TEMPLATE, "spec": {**DEFAULT_TEMPLATE["spec"], "schedulerName": SCHEDULER}}
    file = tmp_path_factory.mktemp("template") / "pod.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


@pytest.fixture(scope="session")
def roles(
    shipped: dict[str, Cluster],
    namespace: str,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Roles]:
    """One launcher, two watchers, and a Redis."""
    settings = {
        "kubernetes.namespace": namespace,
        "kubernetes.pod_template_file": template,
        "kubernetes.create_window": 2.0,
        "kubernetes.retry_budget": 1.5,
        "kubernetes.request_timeout": 1.5,
    }
    with Roles(tmp_path_factory.mktemp("roles"), **settings) as roles:
        for _ in range(2):
            roles.watcher(kubernetes__kubeconfig=shipped["watcher"].kubeconfig)
        roles.launcher(kubernetes__kubeconfig=shipped["launcher"].kubeconfig)
        roles.until_led()
        yield roles
        roles.kill()


@pytest.fixture
def new_flow(roles: Roles, cluster: Cluster) -> Iterator[NewFlow]:
    """Makes flows, and ends their executors."""
    made: list[Flow] = []

    def make(name: str, **settings: Any) -> Flow:
        made.append(Flow(roles, cluster, name, roles.executor(name, **settings)))
        return made[-1]

    yield make
    for flow in made:
        flow.executor.terminate()
