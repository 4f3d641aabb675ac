"""What can be done to objects: create, replace, patch, delete; one strategy for pods."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from kbroker.local.cluster import admission
from kbroker.local.cluster.discovery import RESOURCES
from kbroker.local.cluster.failure import Failure, conflict, modified
from kbroker.local.cluster.patches import patched
from kbroker.local.cluster.store import Object, Store, Stored, timestamp

_DEFAULT_GRACE = 30
_ENDED = ("Succeeded", "Failed")
# Written by the server alone; what a client sends is replaced by what stands.
_SERVER_FIELDS = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "name",
)


class Resources:
    """The rules of the API server between a request and the store.

    Args:
        store: where objects are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.create_before_policy = True

    def create(self, resource: str, namespace: str, content: Any) -> Stored:
        """Create an object.

        Raises:
            Failure: as an API server would.
        """
        kind, _, _, namespaced = RESOURCES[resource]
        if not isinstance(content, dict):
            raise Failure(400, "the body of the request is not an object")
        if content.setdefault("kind", kind) != kind:
            raise Failure(400, f"{content['kind']} in version v1 cannot be handled as a {kind}")
        content["apiVersion"] = "v1"
        metadata = content.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        for name in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
            metadata.pop(name, None)
        if namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise Failure(
                    400,
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request",
                )
            name = metadata.get("name", "")
            admission.check_namespace(self.store, resource, namespace, name)
        if resource == "pods":
            self._admit_pod(namespace, content)
        else:
            admission.check_metadata(kind, content)
            if resource == "namespaces":
                content["status"] = {"phase": "Active"}
        return self.store.create(resource, content)

    def _admit_pod(self, namespace: str, content: Object) -> None:
        spec = content.setdefault("spec", {})
        admission.check_pod(content)
        spec.setdefault("restartPolicy", "Always")
        spec.setdefault("terminationGracePeriodSeconds", _DEFAULT_GRACE)
        spec.setdefault("schedulerName", "default-scheduler")
        spec.setdefault("serviceAccountName", "default")
        spec.pop("nodeName", None)
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            container.setdefault("imagePullPolicy", "IfNotPresent")
            container.setdefault("resources", {})
        content["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        name = content["metadata"]["name"]
        if self.store.find("pods", namespace, name) is None:
            admission.check_quota(self.store, namespace, name)
        if self.create_before_policy:
            admission.check_create_before(content)

    def replace(
        self, resource: str, namespace: str, name: str, content: Any, *, subresource: str = ""
    ) -> Stored:
        """Replace an object, or only its status.

        Raises:
            Failure: as an API server would.
        """
        before = self.store.get(resource, namespace, name)
        if not isinstance(content, dict):
            raise Failure(400, "the body of the request is not an object")
        version = content.get("metadata", {}).get("resourceVersion")
        if version and version != str(before.version):
            raise modified(resource, name)
        return self._replaced(resource, before, content, subresource)

    def patch(
        self,
        resource: str,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        *,
        subresource: str = "",
    ) -> Stored:
        """Patch an object, or only its status; uid and version in the patch are preconditions.

        Raises:
            Failure: as an API server would.
        """
        before = self.store.get(resource, namespace, name)
        content = patched(content_type, before.object, patch)
        metadata = content["metadata"]
        if metadata.get("resourceVersion") != str(before.version):
            raise modified(resource, name)
        if metadata.get("uid") != before.object["metadata"]["uid"]:
            given, present = metadata.get("uid"), before.object["metadata"]["uid"]
            raise conflict(resource, name, _uid_differs(given, present))
        return self._replaced(resource, before, content, subresource)

    def _replaced(self, resource: str, before: Stored, content: Object, subresource: str) -> Stored:
        after = before.copy()
        if subresource == "status":
            after["status"] = content.get("status", {})
            return self.store.replace(resource, before, after)
        status = after.get("status")
        kept = {
            name: after["metadata"][name] for name in _SERVER_FIELDS if name in after["metadata"]
        }
        after = {**content, "metadata": {**content["metadata"], **kept}}
        after["metadata"]["resourceVersion"] = str(before.version)
        for name in _SERVER_FIELDS:
            if name not in kept:
                after["metadata"].pop(name, None)
        if status is not None:
            after["status"] = status
        if resource == "pods":
            admission.check_metadata("Pod", after)
            admission.check_change(before.object, after)
        return self.store.replace(resource, before, after)

    def delete(self, resource: str, namespace: str, name: str, options: Object) -> Stored:
        """Delete an object; a pod that runs is told to end first.

        Raises:
            Failure: as an API server would.
        """
        before = self.store.get(resource, namespace, name)
        _check_preconditions(resource, before, options.get("preconditions") or {})
        if resource == "namespaces":
            return self._empty_namespace(before)
        if resource != "pods":
            return self.store.remove(resource, before)
        pod = before.object
        grace = options.get("gracePeriodSeconds")
        if grace is None:
            grace = pod["spec"]["terminationGracePeriodSeconds"]
        if not pod["spec"].get("nodeName") or pod["status"]["phase"] in _ENDED:
            grace = 0
        if grace <= 0:
            return self.store.remove(resource, before)
        if pod["metadata"].get("deletionTimestamp"):
            left = pod["metadata"]["deletionGracePeriodSeconds"]
            if grace >= left:
                return before
        after = before.copy()
        due = datetime.now(UTC) + timedelta(seconds=grace)
        after["metadata"]["deletionTimestamp"] = timestamp(due)
        after["metadata"]["deletionGracePeriodSeconds"] = grace
        return self.store.replace(resource, before, after)

    def _empty_namespace(self, before: Stored) -> Stored:
        name = before.object["metadata"]["name"]
        for resource, (_, _, _, namespaced) in RESOURCES.items():
            if namespaced:
                for stored in list(self.store.all(resource, name)):
                    self.store.remove(resource, stored)
        return self.store.remove("namespaces", before)


def _check_preconditions(resource: str, before: Stored, wanted: Object) -> None:
    metadata = before.object["metadata"]
    name = metadata["name"]
    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
    if uid is not None and uid != metadata["uid"]:
        raise conflict(resource, name, _uid_differs(uid, metadata["uid"]))
    if version is not None and version != str(before.version):
        why = (
            f"the ResourceVersion in the precondition ({version}) does not match the "
            f"ResourceVersion in record ({before.version}). The object might have been modified"
        )
        raise conflict(resource, name, why)


def _uid_differs(wanted: Any, present: str) -> str:
    return (
        f"the UID in the precondition ({wanted}) does not match the UID in record ({present}). "
        "The object might have been deleted and then recreated"
    )
