"""The workload of a pod that was created and waits for it, put into the pod's own Secret.

The pod comes first: its uid makes it the Secret's owner, so that no Secret without owner is ever
left behind. Until the Secret is there the pod waits for its volume, and nothing of it starts.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Protocol

from kbroker import workload_file
from kbroker.api_calls import ApiCalls, CallFailed
from kbroker.event import Cause
from kbroker.kube_client import ApiError
from kbroker.message import LaunchMessage
from kbroker.naming import DEPLOYMENT, MANAGED_BY, WAITS, make_safe_label_value
from kbroker.pod import Pod
from kbroker.retry import Action, ApiFailure, Decision

log = logging.getLogger(__name__)

_ROLE = "launchers need config/kubernetes/launcher-workloads.yaml for it"
# A reason that cannot be written into the pod soon is told at the next try.
_EXPLAINED_WITHIN = 2.0


class Api(Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def create_secret(self, namespace: str, manifest: dict[str, Any]) -> None:
        """Create a Secret."""

    async def replace_secret(self, namespace: str, name: str, manifest: dict[str, Any]) -> None:
        """Replace a Secret."""

    async def patch_pod(self, namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        """Merge-patch a pod."""


class WorkloadDelivery:
    """Gives pods their workloads.

    Args:
        api: the API server.
        calls: repeats requests.
    """

    def __init__(self, api: Api, calls: ApiCalls) -> None:
        self._api = api
        self._calls = calls

    async def deliver(self, message: LaunchMessage, workload: str, pod: Pod) -> Decision | None:
        """Make the pod's Secret hold the workload, whoever may have tried before.

        Returns:
            None when it does. Otherwise what to do about the launch, and why in words that
            quote nothing of the workload: PARK or CREDENTIALS, which are written into the pod
            too, or PERMANENT.
        """
        whose = {
            MANAGED_BY: "kbroker",
            DEPLOYMENT: make_safe_label_value(message.attempt.launch.deployment),
        }
        manifest = workload_file.secret(workload, message.namespace, pod.name, pod.uid, whose)

        async def request(_timeout: float) -> None:
            await self._put(message.namespace, pod.name, manifest)

        try:
            await self._calls.run(request)
        except CallFailed as failure:
            return await self._undelivered(message, pod, failure)
        return None

    async def _put(self, namespace: str, name: str, manifest: dict[str, Any]) -> None:
        try:
            await self._api.create_secret(namespace, manifest)
            return
        except ApiError as error:
            if error.failure.reason != "AlreadyExists":
                raise
        # A killed launcher's, which says the same, or that of an older pod of this name.
        try:
            await self._api.replace_secret(namespace, name, manifest)
        except ApiError as error:
            if error.status != 404:
                raise
            gone = ApiFailure(409, "Conflict", "it has just been deleted")
            raise ApiError(gone) from None

    async def _undelivered(self, message: LaunchMessage, pod: Pod, failure: CallFailed) -> Decision:
        decision = failure.decision
        why = f"its workload cannot be put into a Secret: {failure.guarded}"
        permanent = decision.action is Action.PERMANENT
        if permanent and failure.status == 403:
            why = f"{why}: {_ROLE}"
        log.error("pod %s: %s", pod.name, why, extra={"action": "undelivered", "pod": pod.name})
        if permanent:
            return Decision(Action.PERMANENT, 0.0, Cause.ADMISSION, why)
        if failure.status:
            await self._explain(message, pod, why)
        return Decision(decision.action, decision.after, Cause.UNREACHABLE, why)

    async def _explain(self, message: LaunchMessage, pod: Pod, why: str) -> None:
        """Write into the pod what it waits for, where its task's author is told of it."""
        patch = {"metadata": {"uid": pod.uid, "annotations": {WAITS: why}}}

        async def request(_timeout: float) -> None:
            await self._api.patch_pod(message.namespace, pod.name, patch)

        with suppress(CallFailed):
            await self._calls.run(request, deadline=self._calls.monotonic() + _EXPLAINED_WITHIN)
