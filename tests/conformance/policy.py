"""The shipped create-before policy, under a name of its own and for one case's pods alone.

The same policy may be installed in the cluster already, under its shipped name.
"""

from __future__ import annotations

import copy
import secrets

import yaml

from kbroker.naming import create_before_annotation
from tests.conformance.accounts import SHIPPED
from tests.conformance.cluster import Cluster, Object, poll

MANAGED_BY = "app.kubernetes.io/managed-by"
DENIED = "denied request: creation time is past kbroker/create-before"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_RESOURCES = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


class Policy:
    """config/kubernetes/create-before-policy.yaml for pods with these labels; `with` removes it.

    Args:
        cluster: as its administrator.
        labels: that pods must have; for `MANAGED_BY` in place of the shipped value.
    """

    def __init__(self, cluster: Cluster, labels: dict[str, str]) -> None:
        self.name = f"kbroker-conformance-{secrets.token_hex(4)}"
        self._cluster = cluster
        self._labels = labels

    def __enter__(self) -> Policy:
        text = (SHIPPED / "create-before-policy.yaml").read_text()
        for content in yaml.safe_load_all(text):
            mine = self._own(content)
            self._cluster.call("POST", self._path(content["kind"]), mine).expect(201)
        return self

    def __exit__(self, *_: object) -> None:
        for kind in _RESOURCES:
            self._cluster.call("DELETE", self._path(kind, self.name))

    def _own(self, shipped: Object) -> Object:
        content = copy.deepcopy(shipped)
        content["metadata"]["name"] = self.name
        if content["kind"] == "ValidatingAdmissionPolicy":
            selector = content["spec"]["matchConstraints"]["objectSelector"]
            selector["matchLabels"].update(self._labels)
        else:
            content["spec"]["policyName"] = self.name
        return content

    def _path(self, kind: str, name: str = "") -> str:
        return f"{_ADMISSION}/{_RESOURCES[kind]}" + (f"/{name}" if name else "")

    @property
    def refusal(self) -> str:
        """What the API server says of a pod that comes too late."""
        return f"ValidatingAdmissionPolicy '{self.name}' with binding '{self.name}' {DENIED}"

    def until_in_force(self, where: str, late: Object) -> None:
        """Wait until this pod, which comes too late, is refused: a moment after the policy's make.

        Args:
            where: path of the pods.
            late: the pod.
        """
        name = late["metadata"]["name"]

        def refused() -> bool:
            answer = self._cluster.call("POST", where, late)
            if answer.status == 201:
                self._cluster.call("DELETE", f"{where}/{name}?gracePeriodSeconds=0")
            return answer.status != 201

        poll("the policy is in force", refused, 30)


def create_before(manifest: Object, moment: float, managed_by: str = "kbroker") -> Object:
    """The manifest as a launcher sends it: permitted until a moment.

    Args:
        manifest: is changed.
        moment: seconds since the epoch.
        managed_by: whose it is, by its label.
    """
    metadata = manifest["metadata"]
    metadata["labels"][MANAGED_BY] = managed_by
    metadata["annotations"] = {
        "kbroker/create-before": create_before_annotation(int(moment * 1000))
    }
    return manifest
