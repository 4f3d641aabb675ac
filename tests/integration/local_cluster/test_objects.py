"""What an API server does with objects: identity, versions, validation, preconditions, patches."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest

from tests.integration.local_cluster.client import Client, pod, waiting


def test_created_object_has_identity_version_and_defaults(client: Client) -> None:
    first, second = client.create(waiting("a")), client.create(waiting("b"))
    metadata = first["metadata"]
    assert uuid.UUID(metadata["uid"]) != uuid.UUID(second["metadata"]["uid"])
    assert metadata["namespace"] == client.namespace
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(second["metadata"]["resourceVersion"]) > int(metadata["resourceVersion"])
    assert first["spec"]["terminationGracePeriodSeconds"] == 30
    assert first["status"]["phase"] == "Pending"


def test_versions_are_shared_by_all_resources(client: Client) -> None:
    versions = [
        int(made["metadata"]["resourceVersion"])
        for made in (
            client.create(waiting("a")),
            client.create({"metadata": {"name": "c"}, "data": {"x": "1"}}, "configmaps"),
            client.create({"metadata": {"name": "s"}}, "secrets"),
            client.create(waiting("b")),
        )
    ]
    assert versions == sorted(set(versions))


def test_generated_names_differ(client: Client) -> None:
    content = waiting("")
    content["metadata"] = {"generateName": "job-"}
    names = {client.create(content)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


def test_name_is_taken(client: Client) -> None:
    client.create(waiting("a"))
    answer = client.refused(waiting("a"))
    assert (answer.status, answer.json["reason"]) == (409, "AlreadyExists")
    assert answer.message == 'pods "a" already exists'
    assert answer.json["details"] == {"name": "a", "kind": "pods"}
    assert answer.json["kind"] == "Status"
    assert answer.json["status"] == "Failure"


def test_missing_object_and_namespace(client: Client) -> None:
    answer = client.get("pods", "none")
    assert (answer.status, answer.message) == (404, 'pods "none" not found')
    elsewhere = Client(client.cluster, "nowhere")
    refused = elsewhere.refused(waiting("a"))
    assert (refused.status, refused.message) == (404, 'namespaces "nowhere" not found')
    assert client.delete("none").status == 404
    assert client.call("GET", "/api/v1/unheard").status == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"metadata": {"name": "Upper"}}, "metadata.name"),
        ({"metadata": {"name": "x" * 254}}, "metadata.name"),
        ({"metadata": {"name": "-x"}}, "metadata.name"),
        ({"metadata": {"name": "a", "labels": {"k": "v" * 64}}}, "metadata.labels"),
        ({"metadata": {"name": "a", "labels": {"k": "-v"}}}, "metadata.labels"),
        ({"metadata": {"name": "a", "labels": {"bad key": "v"}}}, "metadata.labels"),
        ({"metadata": {"name": "a", "labels": {"a/b/c": "v"}}}, "metadata.labels"),
        ({"metadata": {"name": "a", "annotations": {"k": "v" * 300_000}}}, "metadata.annotations"),
        ({"spec": {"containers": []}}, "spec.containers"),
        ({"spec": {"containers": [{"name": "Bad", "image": "x"}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": [{"name": "a"}]}}, "spec.containers[0].image"),
        (
            {"spec": {"containers": [{"name": "a", "image": "x"}] * 2}},
            "spec.containers[1].name",
        ),
        (
            {
                "spec": {
                    "restartPolicy": "Sometimes",
                    "containers": [{"name": "a", "image": "x"}],
                }
            },
            "spec.restartPolicy",
        ),
        (
            {"spec": {"activeDeadlineSeconds": 0, "containers": [{"name": "a", "image": "x"}]}},
            "spec.activeDeadlineSeconds",
        ),
    ],
)
def test_invalid_pod(client: Client, change: dict[str, Any], field: str) -> None:
    answer = client.refused({**waiting("a"), **change})
    assert (answer.status, answer.json["reason"]) == (422, "Invalid")
    assert field in [cause["field"] for cause in answer.json["details"]["causes"]]
    assert answer.message.startswith('Pod "')
    assert "is invalid: " in answer.message


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"text"', b'{"kind":"Secret"}', b'{"metadata":{"namespace":"other"}}']
)
def test_body_that_is_no_pod(client: Client, body: bytes) -> None:
    connection = client.connect()
    connection.request(
        "POST", client.path("pods"), body, {"Authorization": f"Bearer {client.token}"}
    )
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize(
    "content",
    [
        {"metadata": 3},
        {"metadata": {"name": 3}},
        {"metadata": {"name": "a", "labels": []}},
        {"metadata": {"name": "a", "annotations": {"a": 1}}},
        {"metadata": {"name": "a"}, "spec": {"containers": {}}},
        {"metadata": {"name": "a"}, "spec": {"containers": [None]}},
        {"metadata": {"name": "a"}, "spec": []},
        {
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "image": "x", "env": [3]}]},
        },
        {
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "image": "x", "command": "true"}]},
        },
    ],
)
def test_wrong_types_are_the_clients_mistake(client: Client, content: dict[str, Any]) -> None:
    assert client.refused(content).status in (400, 422)


def test_body_that_is_too_large(client: Client) -> None:
    content = {"metadata": {"name": "c"}, "data": {"x": "y" * 3_200_000}}
    answer = client.refused(content, "configmaps")
    assert (answer.status, answer.json["reason"]) == (413, "RequestEntityTooLarge")


class TestUpdate:
    def test_stale_version(self, client: Client) -> None:
        first = client.unscheduled("a")
        changed = {**first, "metadata": {**first["metadata"], "labels": {"n": "1"}}}
        assert client.call("PUT", client.path("pods", "a"), changed).status == 200
        answer = client.call("PUT", client.path("pods", "a"), changed)
        assert (answer.status, answer.json["reason"]) == (409, "Conflict")
        assert answer.message == (
            'Operation cannot be fulfilled on pods "a": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )

    def test_unchanged_object_keeps_its_version(self, client: Client) -> None:
        first = client.unscheduled("a", labels={"x": "1"})
        answer = client.patch("a", {"metadata": {"labels": {"x": "1"}}})
        assert answer.json == first

    def test_identity_cannot_be_changed(self, client: Client) -> None:
        first = client.unscheduled("a")
        changed = {**first, "metadata": {**first["metadata"], "creationTimestamp": None}}
        answer = client.call("PUT", client.path("pods", "a"), changed)
        for name in ("uid", "name", "creationTimestamp"):
            assert answer.json["metadata"][name] == first["metadata"][name]


class TestPatch:
    def test_merge(self, client: Client) -> None:
        client.create(waiting("a", labels={"x": "1", "y": "1"}))
        answer = client.patch("a", {"metadata": {"labels": {"x": None, "z": "2"}}})
        assert answer.status == 200
        assert answer.json["metadata"]["labels"] == {"y": "1", "z": "2"}

    def test_json(self, client: Client) -> None:
        client.create(waiting("a", labels={"x": "1"}))
        patch = [
            {"op": "test", "path": "/metadata/labels/x", "value": "1"},
            {"op": "add", "path": "/metadata/labels/example.org~1y", "value": "2"},
            {"op": "remove", "path": "/metadata/labels/x"},
        ]
        answer = client.patch("a", patch, "json")
        assert answer.json["metadata"]["labels"] == {"example.org/y": "2"}
        assert client.patch("a", patch, "json").status == 422

    def test_strategic_merges_containers_by_name(self, client: Client) -> None:
        client.create(waiting("a"))
        patch = {"spec": {"containers": [{"name": "base", "image": "other"}]}}
        answer = client.patch("a", patch, "strategic-merge")
        assert answer.status == 200, answer.body
        assert [c["image"] for c in answer.json["spec"]["containers"]] == ["other"]
        assert answer.json["spec"]["containers"][0]["command"] == ["true"]

    def test_apply_is_refused(self, client: Client) -> None:
        client.create(waiting("a"))
        answer = client.call(
            "PATCH", client.path("pods", "a"), {}, Content_Type="application/apply-patch+yaml"
        )
        assert answer.status == 415

    @pytest.mark.parametrize(
        ("metadata", "status"),
        [({"uid": str(uuid.uuid4())}, 422), ({"resourceVersion": "1"}, 409)],
        ids=["uid", "version"],
    )
    def test_preconditions_in_the_body(
        self, client: Client, metadata: dict[str, str], status: int
    ) -> None:
        first = client.unscheduled("a")
        wrong = {"metadata": metadata, "spec": {"activeDeadlineSeconds": 5}}
        assert client.patch("a", wrong).status == status
        right = {name: first["metadata"][name] for name in ("uid", "resourceVersion")}
        answer = client.patch("a", {"metadata": right, "spec": {"activeDeadlineSeconds": 5}})
        assert answer.json["spec"]["activeDeadlineSeconds"] == 5

    def test_deadline_may_only_come_down(self, client: Client) -> None:
        client.create(waiting("a"))
        assert client.patch("a", {"spec": {"activeDeadlineSeconds": 5}}).status == 200
        assert client.patch("a", {"spec": {"activeDeadlineSeconds": 4}}).status == 200
        for wrong in (5, None, 0):
            answer = client.patch("a", {"spec": {"activeDeadlineSeconds": wrong}})
            assert answer.status == 422
            fields = [cause["field"] for cause in answer.json["details"]["causes"]]
            assert fields == ["spec.activeDeadlineSeconds"]
        assert client.pod("a")["spec"]["activeDeadlineSeconds"] == 4

    def test_specification_is_immutable(self, client: Client) -> None:
        client.create(waiting("a", tolerations=[{"key": "a"}]))
        answer = client.patch("a", {"spec": {"hostname": "other"}})
        assert answer.status == 422
        assert answer.message.startswith(
            'Pod "a" is invalid: spec: Forbidden: pod updates may not change fields other than '
        )
        more = [{"key": "a"}, {"key": "b"}]
        assert client.patch("a", {"spec": {"tolerations": more}}).status == 200
        assert client.patch("a", {"spec": {"tolerations": more[:1]}}).status == 422
        image = {"spec": {"containers": [{"name": "base", "image": "newer"}]}}
        assert client.patch("a", image, "strategic-merge").status == 200

    def test_status_is_written_apart(self, client: Client) -> None:
        client.create(waiting("a"))
        client.patch("a", {"status": {"phase": "Running"}})
        assert client.pod("a")["status"]["phase"] == "Pending"
        answer = client.patch("a/status", {"status": {"message": "x"}, "spec": {"hostname": "y"}})
        assert answer.status == 200, answer.body
        assert client.pod("a")["status"]["message"] == "x"
        assert "hostname" not in client.pod("a")["spec"]


class TestList:
    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("app=web", ["a", "b"]),
            ("app==web,tier=front", ["a"]),
            ("app!=web", ["c", "d"]),
            ("app in (web, db)", ["a", "b", "c"]),
            ("app notin (web,db)", ["d"]),
            ("tier", ["a", "b"]),
            ("!tier", ["c", "d"]),
            ("app in (web),!tier", []),
            ("app=", []),
        ],
    )
    def test_labels(self, client: Client, selector: str, expected: list[str]) -> None:
        client.create(waiting("a", labels={"app": "web", "tier": "front"}))
        client.create(waiting("b", labels={"app": "web", "tier": "back"}))
        client.create(waiting("c", labels={"app": "db"}))
        client.create(waiting("d"))
        assert sorted(client.items(labelSelector=selector)) == expected

    def test_fields(self, client: Client) -> None:
        client.create(waiting("a"))
        client.create(pod("b"))
        client.phase("b", "Succeeded")
        assert client.items(fieldSelector="metadata.name=a") == ["a"]
        assert client.items(fieldSelector="spec.nodeName=") == ["a"]
        assert client.items(fieldSelector="spec.nodeName!=") == ["b"]
        assert client.items(fieldSelector="status.phase=Succeeded") == ["b"]
        assert client.items(fieldSelector="status.phase!=Succeeded,metadata.name!=x") == ["a"]
        assert client.get("pods", fieldSelector="spec.colour=red").status == 400
        assert client.get("pods", labelSelector="a in b").status == 400

    def test_pages_show_one_version(self, client: Client) -> None:
        for n in range(5):
            client.create(waiting(f"p{n}"))
        first = client.get("pods", limit=2).json
        assert first["metadata"]["remainingItemCount"] == 3
        client.delete("p3")
        client.create(waiting("p9"))
        second = client.get("pods", limit=2, **{"continue": first["metadata"]["continue"]}).json
        third = client.get("pods", limit=2, **{"continue": second["metadata"]["continue"]}).json
        pages = [first, second, third]
        names = [item["metadata"]["name"] for page in pages for item in page["items"]]
        assert names == ["p0", "p1", "p2", "p3", "p4"]
        assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
        assert "continue" not in third["metadata"]

    def test_page_after_compaction_is_gone(self, client: Client) -> None:
        for n in range(3):
            client.create(waiting(f"p{n}"))
        token = client.get("pods", limit=1).json["metadata"]["continue"]
        client.create(waiting("later"))
        client.cluster.admin.post("/_local/compact", {})
        answer = client.get("pods", limit=1, **{"continue": token})
        assert (answer.status, answer.json["reason"]) == (410, "Expired")
        assert client.get("pods", limit=1, **{"continue": "garbage"}).status == 400

    def test_version_that_is_not_there_yet(self, client: Client) -> None:
        present = int(client.get("pods").json["metadata"]["resourceVersion"])
        answer = client.get("pods", resourceVersion=present + 1_000_000)
        assert (answer.status, answer.json["reason"]) == (504, "Timeout")
        assert answer.message.startswith("Too large resource version")
        assert [c["reason"] for c in answer.json["details"]["causes"]] == [
            "ResourceVersionTooLarge"
        ]
        assert client.get("pods", resourceVersion=0).status == 200

    @pytest.mark.parametrize("query", [{"limit": "x"}, {"resourceVersion": "x"}, {"limit": "-1"}])
    def test_query_that_is_no_number(self, client: Client, query: dict[str, str]) -> None:
        assert client.get("pods", **query).status == 400


class TestDelete:
    def test_preconditions(self, client: Client) -> None:
        first = client.unscheduled("a")["metadata"]
        stale = client.pod("a")["metadata"]["resourceVersion"]
        client.patch("a", {"metadata": {"labels": {"n": "1"}}})
        for wrong in ({"uid": str(uuid.uuid4())}, {"resourceVersion": stale}):
            answer = client.delete("a", {"preconditions": wrong})
            assert (answer.status, answer.json["reason"]) == (409, "Conflict")
            assert "precondition" in answer.message
        right = {
            "uid": first["uid"],
            "resourceVersion": client.pod("a")["metadata"]["resourceVersion"],
        }
        assert client.delete("a", {"preconditions": right}).status == 200
        assert client.get("pods", "a").status == 404

    def test_collection(self, client: Client) -> None:
        for n in range(3):
            client.create(waiting(f"p{n}", labels={"odd": str(n % 2)}))
        client.call("DELETE", client.path("pods", labelSelector="odd=0"))
        assert client.items() == ["p1"]

    def test_namespace_takes_its_pods_along(self, client: Client) -> None:
        client.create(pod("a", "sleep", "60"))
        client.phase("a", "Running")
        client.call("DELETE", f"/api/v1/namespaces/{client.namespace}")
        refused = client.refused(waiting("b"))
        assert refused.status in (403, 404)
        if refused.status == 403:
            assert "because it is being terminated" in refused.message


def test_quota(client: Client) -> None:
    client.create({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}, "resourcequotas")
    client.create(waiting("a"))
    client.create(waiting("b"))
    answer = client.refused(waiting("c"))
    assert (answer.status, answer.json["reason"]) == (403, "Forbidden")
    assert answer.message == (
        'pods "c" is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, '
        "limited: pods=2"
    )
    client.delete("a")
    client.create(waiting("c"))


class TestCreateBefore:
    MESSAGE = (
        "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'kbroker-create-before' with binding "
        "'kbroker-create-before' denied request: creation time is past kbroker/create-before"
    )

    OURS: ClassVar[dict[str, str]] = {"app.kubernetes.io/managed-by": "kbroker"}

    def test_past(self, client: Client) -> None:
        annotations = {"kbroker/create-before": "2020-01-01T00:00:00.000Z"}
        past = waiting("a", annotations=annotations, labels=self.OURS)
        client.create(waiting("of-somebody-else", annotations=annotations))
        answer = client.refused(past)
        assert (answer.status, answer.json["reason"]) == (422, "Invalid")
        assert answer.message == self.MESSAGE

    def test_future(self, client: Client) -> None:
        annotations = {"kbroker/create-before": "2999-01-01T00:00:00.000Z"}
        client.create(waiting("a", annotations=annotations, labels=self.OURS))

    def test_switched_off(self, client: Client) -> None:
        client.cluster.admin.post("/_local/policy", {"create_before": False})
        try:
            annotations = {"kbroker/create-before": "2020-01-01T00:00:00Z"}
            client.create(waiting("a", annotations=annotations, labels=self.OURS))
        finally:
            client.cluster.admin.post("/_local/policy", {"create_before": True})


class TestAccess:
    @pytest.mark.parametrize("token", ["", "wrong"])
    def test_without_a_valid_token(self, client: Client, token: str) -> None:
        stranger = Client(client.cluster, client.namespace, token)
        for path in ("/api", client.path("pods"), "/_local/stats"):
            answer = stranger.call("GET", path)
            assert (answer.status, answer.message) == (401, "Unauthorized")
            assert answer.json["reason"] == "Unauthorized"

    def test_health_needs_no_token(self, client: Client) -> None:
        stranger = Client(client.cluster, client.namespace, "")
        for path in ("/healthz", "/readyz", "/livez"):
            assert stranger.call("GET", path).body == b"ok"

    def test_denied_verb(self, client: Client) -> None:
        asked = {"user": "jane", "deny": [{"verb": "create", "resource": "pods"}]}
        token = client.cluster.admin.post("/_local/tokens", asked)["token"]
        jane = Client(client.cluster, client.namespace, token)
        answer = jane.refused(waiting("a"))
        assert (answer.status, answer.json["reason"]) == (403, "Forbidden")
        assert answer.message == (
            'pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the '
            f'namespace "{client.namespace}"'
        )
        assert jane.items() == []
        assert jane.call("GET", "/_local/stats").status == 403

    @pytest.mark.parametrize(("verb", "allowed"), [("create", False), ("list", True)])
    def test_access_review(self, client: Client, verb: str, allowed: bool) -> None:
        asked = {"user": "joe", "deny": [{"verb": "create", "resource": "pods"}]}
        token = client.cluster.admin.post("/_local/tokens", asked)["token"]
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "x"}},
        }
        answer = Client(client.cluster, token=token).call(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
        )
        assert answer.status == 201
        assert answer.json["status"]["allowed"] is allowed


def owned_by(owner: dict[str, Any], of: str, **more: Any) -> dict[str, Any]:
    metadata = owner["metadata"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"]}
    references = [{**reference, "uid": metadata["uid"], **more}]
    return {"metadata": {"name": of, "ownerReferences": references}}


class TestOwners:
    """What is owned goes with its owner: the garbage collector, for pods as owners."""

    @pytest.mark.parametrize("resource", ["secrets", "configmaps"])
    def test_what_a_pod_owns_goes_with_it(self, client: Client, resource: str) -> None:
        first, second = client.create(waiting("a")), client.create(waiting("b"))
        client.create(owned_by(first, "of-a"), resource)
        client.create(owned_by(second, "of-b"), resource)
        client.create({"metadata": {"name": "of-nobody"}}, resource)
        client.delete("a")
        assert set(client.items(resource)) == {"of-b", "of-nobody"}

    def test_it_stays_while_a_finalizer_holds_the_pod(self, client: Client) -> None:
        content = waiting("a")
        content["metadata"]["finalizers"] = ["example.com/x"]
        client.create(owned_by(client.create(content), "s"), "secrets")
        client.delete("a")
        assert client.items("secrets") == ["s"]
        client.patch("a", {"metadata": {"finalizers": None}})
        assert client.items("secrets") == []

    def test_it_stays_while_one_of_its_owners_is_there(self, client: Client) -> None:
        first, second = client.create(waiting("a")), client.create(waiting("b"))
        shared = owned_by(first, "s")
        shared["metadata"]["ownerReferences"] += owned_by(second, "s")["metadata"][
            "ownerReferences"
        ]
        client.create(shared, "secrets")
        client.delete("a")
        assert client.items("secrets") == ["s"]
        client.delete("b")
        assert client.items("secrets") == []

    @pytest.mark.parametrize("more", [{"uid": "another"}, {"name": "gone"}])
    def test_without_its_owner_it_does_not_stay(self, client: Client, more: Any) -> None:
        client.create(owned_by(client.create(waiting("a")), "s", **more), "secrets")
        assert client.items("secrets") == []

    def test_owners_of_other_kinds_are_taken_to_be_there(self, client: Client) -> None:
        client.create(owned_by({"metadata": {"name": "j", "uid": "u"}}, "s", kind="Job"), "secrets")
        assert client.items("secrets") == ["s"]

    def test_a_replaced_one_has_other_owners(self, client: Client) -> None:
        first, second = client.create(waiting("a")), client.create(waiting("b"))
        client.create(owned_by(first, "s"), "secrets")
        client.call("PUT", client.path("secrets", "s"), owned_by(second, "s"))
        client.delete("a")
        assert client.items("secrets") == ["s"]
        client.delete("b")
        assert client.items("secrets") == []

    @pytest.mark.parametrize("missing", ["apiVersion", "kind", "name", "uid"])
    def test_a_reference_is_whole(self, client: Client, missing: str) -> None:
        content = owned_by({"metadata": {"name": "a", "uid": "u"}}, "s", **{missing: ""})
        answer = client.refused(content, "secrets")
        assert answer.status == 422
        assert f"metadata.ownerReferences[0].{missing}: Required value" in answer.message
