"""ValidatingAdmissionPolicies, as far as the shipped create-before policy goes.

Expressions are not evaluated: a policy that names the annotation kbroker/create-before is
taken for the shipped one, and enforced for the pods that its objectSelector matches while
a binding names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from kbroker.local.cluster.failure import Failure
from kbroker.local.cluster.store import Object, Store

POLICIES = "validatingadmissionpolicies"
BINDINGS = "validatingadmissionpolicybindings"
CREATE_BEFORE = "kbroker/create-before"
_NAME = "kbroker-create-before"
# The same as config/kubernetes/create-before-policy.yaml, without its words for people.
_SHIPPED: tuple[tuple[str, Object], ...] = (
    (
        POLICIES,
        {
            "metadata": {"name": _NAME, "labels": {"app.kubernetes.io/part-of": "kbroker"}},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "objectSelector": {
                        "matchLabels": {"app.kubernetes.io/managed-by": "kbroker"},
                    },
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ],
                },
                "variables": [
                    {
                        "name": "limited",
                        "expression": "has(object.metadata.annotations) && "
                        "'kbroker/create-before' in object.metadata.annotations",
                    }
                ],
                "validations": [
                    {
                        "expression": "!variables.limited || "
                        "timestamp(object.metadata.creationTimestamp) + duration('1s') <= "
                        "timestamp(object.metadata.annotations['kbroker/create-before'])",
                        "message": "creation time is past kbroker/create-before",
                        "reason": "Invalid",
                    }
                ],
            },
        },
    ),
    (
        BINDINGS,
        {
            "metadata": {"name": _NAME, "labels": {"app.kubernetes.io/part-of": "kbroker"}},
            "spec": {"policyName": _NAME, "validationActions": ["Deny"]},
        },
    ),
)


def shipped() -> list[tuple[str, Object]]:
    """Resource and content of the create-before policy and its binding, to be created."""
    return [(resource, orjson.loads(orjson.dumps(content))) for resource, content in _SHIPPED]


def check_policies(store: Store, pod: Object) -> None:
    """No policy refuses this pod.

    Raises:
        Failure: 422, as a real server answers.
    """
    for binding in store.all(BINDINGS):
        policy = store.find(POLICIES, "", binding.object["spec"]["policyName"])
        if policy is not None and _is_ours(policy.object) and _selects(policy.object, pod):
            names = (policy.object["metadata"]["name"], binding.object["metadata"]["name"])
            check_create_before(pod, *names)


def check_create_before(pod: Object, policy: str, binding: str) -> None:
    """The pod is not created later than its annotation allows.

    Args:
        pod: as it was sent.
        policy: name of the policy that says so.
        binding: name of its binding.

    Raises:
        Failure: 422.
    """
    limit = (pod["metadata"].get("annotations") or {}).get(CREATE_BEFORE)
    if limit is None:
        return
    # A creation time has whole seconds; the pod is judged by the end of its second.
    created = datetime.now(UTC).replace(microsecond=0)
    try:
        in_time = created + timedelta(seconds=1) <= datetime.fromisoformat(limit)
    except (TypeError, ValueError):
        in_time = False
    if not in_time:
        name = pod["metadata"]["name"]
        message = (
            f"pods \"{name}\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding "
            f"'{binding}' denied request: creation time is past kbroker/create-before"
        )
        raise Failure(422, message, "Invalid", name=name, kind="pods")


def _is_ours(policy: Mapping[str, Any]) -> bool:
    validations = policy["spec"].get("validations") or []
    return any(CREATE_BEFORE in validation.get("expression", "") for validation in validations)


def _selects(policy: Mapping[str, Any], pod: Object) -> bool:
    constraints = policy["spec"].get("matchConstraints") or {}
    wanted = (constraints.get("objectSelector") or {}).get("matchLabels") or {}
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in wanted.items())
