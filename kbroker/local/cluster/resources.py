"""What can be done to objects: create, replace, patch, delete; one strategy for pods."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from kbroker.local.cluster import admission, finalizers
from kbroker.local.cluster.admission_policies import check_policies, shipped
from kbroker.local.cluster.discovery import GROUPS_OF, RESOURCES
from kbroker.local.cluster.failure import Failure, conflict, invalid, modified
from kbroker.local.cluster.owners import Owners
from kbroker.local.cluster.patches import patched
from kbroker.local.cluster.quotas import Quotas
from kbroker.local.cluster.report import ENDED
from kbroker.local.cluster.shape import check_shape
from kbroker.local.cluster.store import Change, Object, Store, Stored, timestamp

_SPEC_DEFAULTS = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "schedulerName": "default-scheduler",
    "serviceAccountName": "default",
}
# Written by the server alone; what a client sends is replaced by what stands.
_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
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
        self.holds_namespaces = False
        self._quotas = Quotas(store)
        self._owners = Owners(store)
        store.listen("pods", self._pod_changed)

    def install_policy(self, wanted: bool) -> None:
        """Have the create-before policy and its binding, or have them not."""
        for resource, content in shipped():
            found = self.store.find(resource, "", content["metadata"]["name"])
            if wanted and found is None:
                self.create(resource, "", content)
            elif not wanted and found is not None:
                self.store.remove(resource, found)

    def hold_namespaces(self, wanted: bool) -> None:
        """Have namespaces that are deleted stay Terminating, or let them go."""
        self.holds_namespaces = wanted
        for namespace in list(self.store.all("namespaces")):
            self._remove_if_empty(namespace.object["metadata"]["name"])

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
        group = GROUPS_OF.get(resource)
        content["apiVersion"] = f"{group}/v1" if group else "v1"
        if content.get("metadata") is None:
            content["metadata"] = {}
        check_shape(resource, kind, content)
        metadata = content["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        for name in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
            metadata.pop(name, None)
        if namespaced:
            metadata["namespace"] = metadata.get("namespace") or namespace
            if metadata["namespace"] != namespace:
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
            elif resource == "secrets":
                _encode(content)
        stored = self.store.create(resource, content)
        if resource == "namespaces":
            name = content["metadata"]["name"]
            self.create("serviceaccounts", name, {"metadata": {"name": "default"}})
        self._owners.written(resource, stored)
        return stored

    def _admit_pod(self, namespace: str, content: Object) -> None:
        admission.check_pod(content)
        spec = content["spec"]
        _default(spec, _SPEC_DEFAULTS)
        spec.pop("nodeName", None)
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            _default(container, {"imagePullPolicy": "IfNotPresent", "resources": {}})
        content["status"] = {"phase": "Pending", "qosClass": _qos_class(spec["containers"])}
        content["metadata"]["generation"] = 1
        # In an API server's order: a name that is taken is found last.
        check_policies(self.store, content)
        self._quotas.check(namespace, content["metadata"]["name"])

    def replace(
        self, resource: str, namespace: str, name: str, content: Any, *, subresource: str = ""
    ) -> Stored:
        """Replace an object, or only its status.

        Raises:
            Failure: as an API server would.
        """
        before = self.store.get(resource, namespace, name)
        metadata = _checked(resource, content)["metadata"]
        if metadata.get("name") != name:
            raise Failure(
                400,
                f"the name of the object ({metadata.get('name')}) does not match the name on the "
                f"URL ({name})",
            )
        version, uid = metadata.get("resourceVersion"), metadata.get("uid")
        if version and version != str(before.version):
            raise modified(resource, name)
        if uid and uid != before.object["metadata"]["uid"]:
            raise conflict(resource, name, _uid_differs(uid, before.object["metadata"]["uid"]))
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
        metadata = _checked(resource, content)["metadata"]
        if metadata.get("resourceVersion") != str(before.version):
            raise modified(resource, name)
        if metadata.get("uid") != before.object["metadata"]["uid"]:
            problem = f'Invalid value: "{metadata.get("uid")}": field is immutable'
            raise invalid(RESOURCES[resource][0], name, [("metadata.uid", problem)])
        return self._replaced(resource, before, content, subresource)

    def _replaced(self, resource: str, before: Stored, content: Object, subresource: str) -> Stored:
        after = before.copy()
        if subresource == "status":
            after["status"] = content.get("status") or {}
            return self.store.replace(resource, before, after)
        sent = {k: v for k, v in content["metadata"].items() if k not in _SERVER_FIELDS}
        kept = {k: v for k, v in after["metadata"].items() if k in _SERVER_FIELDS}
        status = {"status": after["status"]} if "status" in after else {}
        after = {**content, "metadata": {**sent, **kept}, **status}
        if resource == "pods":
            admission.check_pod(after)
            admission.check_change(before.object, after)
            if after["spec"] != before.object["spec"]:
                after["metadata"]["generation"] += 1
        finalizers.check(RESOURCES[resource][0], before.object, after)
        if finalizers.is_held(after) and not after["metadata"].get("finalizers"):
            return self.store.remove(resource, self.store.replace(resource, before, after))
        stored = self.store.replace(resource, before, after)
        self._owners.written(resource, stored)
        return stored

    def bind(self, namespace: str, name: str, binding: Any) -> Stored:
        """Give a pod to a node, as a scheduler does; whether there is such a node does not matter.

        Raises:
            Failure: 400, 404, or 409 where it has a node.
        """
        target = binding.get("target") if isinstance(binding, dict) else None
        node = target.get("name") if isinstance(target, dict) else None
        if not isinstance(node, str) or not node:
            raise Failure(400, "a binding needs target.name")
        before = self.store.get("pods", namespace, name)
        given = before.object["spec"].get("nodeName")
        if given:
            why = f'pod {name} is already assigned to node "{given}"'
            raise conflict("pods/binding", name, why)
        if before.object["metadata"].get("deletionTimestamp"):
            why = f"pod {name} is being deleted, cannot be assigned to a host"
            raise conflict("pods/binding", name, why)
        after = before.copy()
        after["spec"]["nodeName"] = node
        conditions = after["status"].get("conditions") or []
        kept = [condition for condition in conditions if condition["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp()}
        after["status"]["conditions"] = [*kept, scheduled]
        return self.store.replace("pods", before, after)

    def delete(self, resource: str, namespace: str, name: str, options: Object) -> Stored:
        """Delete an object; a pod that runs is told to end first.

        Raises:
            Failure: as an API server would.
        """
        before = self.store.get(resource, namespace, name)
        check_preconditions(resource, before, options.get("preconditions") or {})
        if resource == "namespaces":
            return self._end_namespace(before)
        if resource != "pods":
            return finalizers.remove(self.store, resource, before)
        pod = before.object
        grace = options.get("gracePeriodSeconds")
        if grace is None and pod["metadata"].get("deletionTimestamp"):
            return before
        if grace is None:
            grace = pod["spec"]["terminationGracePeriodSeconds"]
        if not pod["spec"].get("nodeName") or pod["status"]["phase"] in ENDED:
            grace = 0
        if grace <= 0:
            return finalizers.remove(self.store, resource, before)
        if pod["metadata"].get("deletionTimestamp"):
            left = pod["metadata"]["deletionGracePeriodSeconds"]
            if grace >= left:
                return before
        after = before.copy()
        due = datetime.now(UTC) + timedelta(seconds=grace)
        after["metadata"]["deletionTimestamp"] = timestamp(due)
        after["metadata"]["deletionGracePeriodSeconds"] = grace
        return self.store.replace(resource, before, after)

    def _end_namespace(self, before: Stored) -> Stored:
        """A namespace takes nothing new, and goes when its last pod has gone."""
        name = before.object["metadata"]["name"]
        after = before.copy()
        after["status"] = {"phase": "Terminating"}
        after["metadata"].setdefault("deletionTimestamp", timestamp())
        ending = self.store.replace("namespaces", before, after)
        for resource, (_, _, _, namespaced) in RESOURCES.items():
            if namespaced:
                for stored in list(self.store.all(resource, name)):
                    self.delete(resource, name, stored.object["metadata"]["name"], {})
        self._remove_if_empty(name)
        return ending

    def _pod_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._remove_if_empty(change.now.object["metadata"]["namespace"])

    def _remove_if_empty(self, namespace: str) -> None:
        found = self.store.find("namespaces", "", namespace)
        if found is None or found.object["status"]["phase"] != "Terminating":
            return
        if self.holds_namespaces:
            return
        if next(self.store.all("pods", namespace), None) is None:
            self.store.remove("namespaces", found)


def _checked(resource: str, content: Any) -> Object:
    """What is to replace an object, with all types as they should be.

    Raises:
        Failure: 400.
    """
    if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
        raise Failure(400, "the body of the request is not an object with metadata")
    check_shape(resource, RESOURCES[resource][0], content)
    return content


def _default(content: Object, defaults: Object) -> None:
    for name, value in defaults.items():
        if content.get(name) is None:
            content[name] = value


def _qos_class(containers: list[Object]) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/."""
    wanted = [(c["resources"].get("requests"), c["resources"].get("limits")) for c in containers]
    if not any(requests or limits for requests, limits in wanted):
        return "BestEffort"
    guaranteed = all(
        limits and {"cpu", "memory"} <= set(limits) and (requests or limits) == limits
        for requests, limits in wanted
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _encode(secret: Object) -> None:
    """Plain values of a secret become encoded ones.

    Raises:
        Failure: 400, a value is not base64.
    """
    data = secret.get("data") or {}
    for name, value in data.items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError as error:
            raise Failure(400, f"illegal base64 data in data.{name}") from error
    for name, value in (secret.pop("stringData", None) or {}).items():
        data[name] = base64.b64encode(value.encode()).decode()
    secret["data"] = data


def check_preconditions(resource: str, before: Stored, wanted: Object) -> None:
    """Whether it is the object that a request is about.

    Raises:
        Failure: 409, it is another one, or another version of it.
    """
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
