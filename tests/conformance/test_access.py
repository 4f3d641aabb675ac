"""Who may do what: RBAC's refusals, and that the roles that kbroker ships are enough."""

from __future__ import annotations

import pytest

from kbroker import workload_file
from kbroker.errors import ClusterError
from kbroker.launcher_identity import check_permissions, lacking_for_logs
from kbroker.retry import is_own_permission
from tests.conformance.accounts import Accounts
from tests.conformance.cluster import Cluster, path, poll
from tests.conformance.pods import Pods

READ = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
ALL_VERBS = ("create", "get", "list", "watch", "update", "patch", "delete", "deletecollection")


@pytest.fixture(scope="module")
def reader(accounts: Accounts) -> Cluster:
    """May get and list pods."""
    return accounts.user(accounts.make("reader", READ), "list pods")


def test_what_is_allowed(pods: Pods, reader: Cluster) -> None:
    pod = pods.create()
    page = reader.do(reader.kube.list_pods(pods.namespace, pods.selector, limit=10))
    assert [found.name for found in page.items] == [pod.name]
    assert reader.do(reader.kube.get_pod(pods.namespace, pod.name))
    reader.do(reader.kube.check_access("list", "pods", pods.namespace))


@pytest.mark.parametrize(
    ("method", "subpath", "verb", "resource"),
    [
        ("POST", "", "create", "pods"),
        ("GET", "?watch=1&timeoutSeconds=1", "watch", "pods"),
        ("PATCH", "/absent", "patch", "pods"),
        ("PUT", "/absent", "update", "pods"),
        ("DELETE", "/absent", "delete", "pods"),
        ("DELETE", "", "deletecollection", "pods"),
        ("GET", "/absent/log", "get", "pods/log"),
        ("PATCH", "/absent/status", "patch", "pods/status"),
        ("POST", "/absent/binding", "create", "pods/binding"),
    ],
    ids=lambda value: value.strip("/?") or "-",
)
def test_what_is_refused(
    pods: Pods, reader: Cluster, method: str, subpath: str, verb: str, resource: str
) -> None:
    """Before anything else is said: whether there is such a pod is none of their business."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    body = pods.manifest() if method in ("POST", "PUT", "PATCH") else None
    answer = reader.call(method, pods.path() + subpath, body, kind).expect(403)
    user = f"system:serviceaccount:{pods.namespace}:reader"
    name = ' "absent"' if "absent" in subpath else ""
    assert answer["reason"] == "Forbidden"
    assert answer["message"] == (
        f'pods{name} is forbidden: User "{user}" cannot {verb} resource "{resource}" '
        f'in API group "" in the namespace "{pods.namespace}"'
    )
    assert not reader.may(verb, resource, pods.namespace)


def test_a_launcher_sees_that_a_refusal_is_about_itself(pods: Pods, reader: Cluster) -> None:
    error = reader.refused(
        reader.kube.create_pod(pods.namespace, pods.manifest()), 403, "Forbidden"
    )
    assert is_own_permission(error.failure)
    with pytest.raises(ClusterError, match="no permission to create pods in namespace"):
        reader.do(reader.kube.check_access("create", "pods", pods.namespace))


def test_what_is_lacking_to_tell_of_logs_is_named(pods: Pods, reader: Cluster) -> None:
    lacks = reader.do(lacking_for_logs(reader.kube, pods.namespace))
    assert [lack.partition(" in namespace ")[0] for lack in lacks] == [
        "no permission to get pods/log",
        "no permission to list events",
    ]


def test_a_role_ends_at_its_namespace(pods: Pods, reader: Cluster) -> None:
    assert reader.call("GET", path("pods", "default")).expect(403)["reason"] == "Forbidden"
    answer = reader.call("GET", "/api/v1/pods").expect(403)
    assert answer["message"].endswith('in API group "" at the cluster scope')


def test_a_role_may_name_single_objects(accounts: Accounts, cluster: Cluster) -> None:
    for name in ("named", "unnamed"):
        content = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        cluster.do(cluster.kube.create_secret(accounts.namespace, content))
    rules = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["named"]}
    ]
    user = accounts.user(accounts.make("one-secret", rules))
    poll(
        "the role is known",
        lambda: user.call("GET", path("secrets", accounts.namespace, "named")).status == 200,
    )
    user.refused(user.kube.get_secret(accounts.namespace, "unnamed"), 403, "Forbidden")
    assert user.call("GET", path("secrets", accounts.namespace)).status == 403


def test_an_unknown_token_is_nobodys(pods: Pods, accounts: Accounts) -> None:
    nobody = accounts.stranger("not-a-token")
    error = nobody.refused(
        nobody.kube.list_pods(pods.namespace, pods.selector, limit=1), 401, "Unauthorized"
    )
    assert str(error) == "Unauthorized"


def test_permission_ends_with_its_binding(accounts: Accounts, cluster: Cluster) -> None:
    user = accounts.user(accounts.make("for-a-while", READ), "list pods")
    cluster.call("DELETE", accounts.binding("for-a-while")).expect(200)
    accounts.until(user, "list", "pods", allowed=False)


class TestShippedRoles:
    def test_the_launcher_may_work_and_no_more(
        self, shipped: dict[str, Cluster], namespace: str
    ) -> None:
        user = shipped["launcher"]
        user.do(check_permissions(user.kube, namespace))
        allowed = {verb for verb in ALL_VERBS if user.may(verb, "pods", namespace)}
        assert allowed == {"create", "get", "patch", "delete"}
        assert user.do(lacking_for_logs(user.kube, namespace)) == []
        assert [verb for verb in ALL_VERBS if user.may(verb, "events", namespace)] == ["list"]
        assert not user.may("get", "secrets", namespace)

    def test_the_watcher_reads_pods_alone(
        self, shipped: dict[str, Cluster], namespace: str
    ) -> None:
        user = shipped["watcher"]
        allowed = {verb for verb in ALL_VERBS if user.may(verb, "pods", namespace)}
        assert allowed == {"get", "list", "watch"}
        assert not user.may("get", "pods/log", namespace)
        assert not user.may("get", "secrets", namespace)

    def test_a_launcher_delivers_workloads_with_one_role_more(
        self, shipped: dict[str, Cluster], accounts: Accounts, cluster: Cluster, pods: Pods
    ) -> None:
        """The Secret may be written twice, read by no launcher, and goes with its pod."""
        accounts.ship("launcher-workloads")
        user, namespace = shipped["launcher"], pods.namespace
        accounts.until(user, "create", "secrets")
        accounts.until(user, "update", "secrets")
        assert not user.may("get", "secrets", namespace)
        pod = pods.create()
        manifest = workload_file.secret("{}", namespace, pod.name, pod.uid, {})
        user.do(user.kube.create_secret(namespace, manifest))
        user.refused(user.kube.create_secret(namespace, manifest), 409, "AlreadyExists")
        user.do(user.kube.replace_secret(namespace, pod.name, manifest))
        where = path("secrets", namespace, pod.name)
        assert cluster.call("GET", where).expect(200)["data"] == manifest["data"]
        pods.remove()
        poll("it has gone", lambda: cluster.call("GET", where).status == 404)
