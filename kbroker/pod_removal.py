"""One pod removed, or stopped, exactly as asked.

Every change carries the pod's uid as a precondition, and the resource version
where a state was judged, so that it hits this pod in this state or nothing.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from kbroker.api_calls import ApiCalls, CallFailed
from kbroker.kube_client import ApiError
from kbroker.message import DeleteMessage, Removal
from kbroker.naming import DEPLOYMENT, STOPPED
from kbroker.pace import Lane
from kbroker.pod import BASE, Pod
from kbroker.record_scripts import removal_item
from kbroker.retry import Action, Decision, park_delay
from kbroker.settings import LauncherSettings
from kbroker.work_item import Bury, Done, Leave, Outcome, Park, WorkItem

log = logging.getLogger(__name__)

# How often a pod that changes under our hands is judged anew before it is parked.
_JUDGEMENTS = 3
_MARGIN = 0.1
# How long a removal waits for its turn while the API server is at its limit, and how long it is
# then set aside, in seconds: whatever waits here keeps launches from being worked on.
_TURN_WITHIN = 0.5
_LATER = (1.0, 5.0)
# https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
_STOP = {"activeDeadlineSeconds": 1}


class Pods(Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def get_pod(self, namespace: str, name: str) -> bytes:
        """A pod as JSON."""

    async def delete_pod(
        self,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: int | None = None,
        grace: int | None = None,
    ) -> None:
        """Delete exactly this pod."""

    async def release_pod(
        self, namespace: str, name: str, *, uid: str, resource_version: int | None = None
    ) -> bytes:
        """Take kbroker's finalizer off exactly this pod."""

    async def patch_pod(self, namespace: str, name: str, patch: dict[str, Any]) -> bytes:
        """Merge-patch a pod."""


class _Answer(Enum):
    DONE = "done"
    GONE = "gone"
    CHANGED = "changed"  # a precondition did not hold


@dataclass(frozen=True, slots=True)
class _Removal:
    """One removal being worked on; `now` in ms by Redis' clock."""

    item: WorkItem
    message: DeleteMessage
    now: int

    @property
    def early(self) -> bool:
        """Whether the pod's name must still be held."""
        return self.message.not_before > self.now


class PodRemoval:
    """Removes pods.

    Args:
        pods: the API server.
        calls: repeats requests.
        settings: how long removals are parked.
        rng: for the jitter.
    """

    def __init__(
        self, pods: Pods, calls: ApiCalls, settings: LauncherSettings, *, rng: random.Random
    ) -> None:
        self._pods = pods
        self._calls = calls
        self._settings = settings
        self._rng = rng

    async def remove(self, item: WorkItem, message: DeleteMessage, now: int) -> Outcome:
        """Delete or stop the pod; `now` is Redis' clock in ms."""
        removal = _Removal(item, message, now)
        if message.removal is Removal.RELEASE and removal.early:
            return self._held(removal)
        if not await self._calls.admit_removal(_TURN_WITHIN):
            return self._later(removal)
        try:
            if message.removal is Removal.RELEASE:
                return await self._release(removal)
            if message.removal is Removal.DELETE and not removal.early:
                return await self._delete(removal)
            return await self._stop(removal)
        except CallFailed as failure:
            return self._after(removal, failure)

    def not_ready(self, item: WorkItem, message: DeleteMessage, now: int) -> Outcome:
        """The launcher itself is refused: the removal waits."""
        return Leave() if item.entry is not None else self._parked(_Removal(item, message, now))

    async def _release(self, removal: _Removal) -> Outcome:
        """Let go of the pod without deleting it."""

        async def request(_timeout: float) -> None:
            await _conditional(self._let_go(removal.message, None))

        await self._calls.run(request, lane=Lane.REMOVE)
        self._calls.removed()
        self._log("released", removal.message)
        return Done()

    async def _delete(self, removal: _Removal) -> Outcome:
        message = removal.message
        answer = await self._ask_delete(message, message.resource_version)
        judged = 0
        while answer is _Answer.CHANGED:
            pod = await self._look(message)
            if pod is None:
                return Done()  # another pod has the name
            version = None if message.resource_version is None else pod.resource_version
            if version is not None and not _finished(pod):
                self._log("spared", message)  # the state that was judged is over
                return Done()
            judged += 1
            if judged > _JUDGEMENTS:
                return self._parked(removal)
            answer = await self._ask_delete(message, version)
        self._calls.removed()
        self._log("deleted", message)
        return Done()

    async def _stop(self, removal: _Removal) -> Outcome:
        """End the pod without deleting it, or delete it where it provably never started."""
        message = removal.message
        for _ in range(_JUDGEMENTS):
            pod = await self._look(message)
            if pod is None:
                return Done()
            if _finished(pod) or pod.metadata.deletion_timestamp:
                return self._stopped(removal)
            if self._verdict_is_over(message, pod):
                return Done()
            if pod.node is not None:
                answer = await self._ask_stop(message, pod)
            elif removal.early:
                # It may be bound, and start, at any moment until its name is free.
                answer = await self._ask_stop(message, pod)
            else:
                answer = await self._ask_delete(message, pod.resource_version)
            if answer is _Answer.GONE:
                return Done()
            if answer is _Answer.DONE:
                self._log("stopped", message)
                unbound = pod.node is None
                return self._held(removal) if unbound and removal.early else self._stopped(removal)
        return self._parked(removal)

    def _stopped(self, removal: _Removal) -> Outcome:
        """A stopped pod stays for the watcher to see; one that is to be deleted is, in time."""
        if removal.message.removal is Removal.STOP:
            return Done()
        return self._held(removal)

    def _held(self, removal: _Removal) -> Park:
        """Look again when the name need not be held any more."""
        left = (removal.message.not_before - removal.now) / 1000 + _MARGIN
        return Park(
            removal_item(removal.message),
            max(0.0, left),
            removal.item.parking.again(removal.now),
        )

    def _verdict_is_over(self, message: DeleteMessage, pod: Pod) -> bool:
        """Whether a pod that was judged not to start has started after all."""
        if message.removal is not Removal.STOP or message.resource_version is None:
            return False
        if pod.resource_version == message.resource_version or not _runs(pod):
            return False
        self._log("spared", message)
        return True

    async def _look(self, message: DeleteMessage) -> Pod | None:
        """The pod, if it is still the one that is meant."""

        async def request(_timeout: float) -> Pod | None:
            try:
                return Pod.decode(await self._pods.get_pod(message.namespace, message.pod))
            except ApiError as error:
                if error.status == 404:
                    return None
                raise

        pod = await self._calls.run(request, lane=Lane.REMOVE)
        if pod is None or pod.uid != message.uid:
            return None
        owner = pod.annotations.get(DEPLOYMENT)
        if owner != message.deployment:
            log.error(
                "pod %s is of deployment %r, not of %r: it is left alone",
                message.pod,
                owner,
                message.deployment,
                extra={"action": "foreign", "pod": message.pod, "uid": message.uid},
            )
            return None
        return pod

    async def _ask_delete(self, message: DeleteMessage, version: int | None) -> _Answer:
        async def request(_timeout: float) -> _Answer:
            return await _conditional(self._let_go_and_delete(message, version))

        return await self._calls.run(request, lane=Lane.REMOVE)

    async def _let_go_and_delete(self, message: DeleteMessage, version: int | None) -> None:
        pod = await self._let_go(message, version)
        if pod.only_held and not pod.metadata.finalizers:
            return  # somebody had deleted it: our finalizer alone kept it
        await self._pods.delete_pod(
            message.namespace,
            message.pod,
            uid=message.uid,
            resource_version=None if version is None else pod.resource_version,
        )

    async def _let_go(self, message: DeleteMessage, version: int | None) -> Pod:
        """Take our finalizer off."""
        body = await self._pods.release_pod(
            message.namespace, message.pod, uid=message.uid, resource_version=version
        )
        return Pod.decode(body)

    async def _ask_stop(self, message: DeleteMessage, pod: Pod) -> _Answer:
        patch: dict[str, Any] = {
            "metadata": {"uid": message.uid, "resourceVersion": str(pod.resource_version)},
            "spec": _STOP,
        }
        if message.cause is not None:
            # With the pod, the cause outlives whatever Redis remembers of it.
            patch["metadata"]["annotations"] = {STOPPED: f"{message.cause}: {message.reason}"}

        async def request(_timeout: float) -> _Answer:
            return await _conditional(self._pods.patch_pod(message.namespace, message.pod, patch))

        return await self._calls.run(request, lane=Lane.REMOVE)

    def _after(self, removal: _Removal, failure: CallFailed) -> Outcome:
        decision: Decision = failure.decision
        if decision.action is Action.CREDENTIALS:
            return self.not_ready(removal.item, removal.message, removal.now)
        if decision.action is Action.PERMANENT:
            return Bury(f"pod {removal.message.pod} cannot be removed: {decision.message}")
        return self._parked(removal, decision.after)

    def _later(self, removal: _Removal) -> Park:
        """Launches go first: it gives its place back instead of waiting for its turn."""
        return Park(
            removal_item(removal.message),
            self._rng.uniform(*_LATER),
            removal.item.parking,  # it did not fail
        )

    def _parked(self, removal: _Removal, least: float = 0.0) -> Park:
        parking = removal.item.parking
        delay = least + park_delay(parking.times, self._settings, self._rng)
        return Park(removal_item(removal.message), delay, parking.again(removal.now))

    def _log(self, action: str, message: DeleteMessage) -> None:
        log.debug(
            "pod %s (%s) %s: %s",
            message.pod,
            message.uid,
            action,
            message.reason or "no longer needed",
            extra={"action": action, "pod": message.pod, "uid": message.uid},
        )


async def _conditional(change: Any) -> _Answer:
    """What a change with preconditions came to."""
    try:
        await change
    except ApiError as error:
        if error.status == 404:
            return _Answer.GONE
        if error.status == 409 or _of_another_pod(error):
            return _Answer.CHANGED
        raise
    return _Answer.DONE


def _of_another_pod(error: ApiError) -> bool:
    """A patch whose uid does not match is not a conflict but an invalid change of the uid."""
    return error.status == 422 and "metadata.uid" in str(error)


def _finished(pod: Pod) -> bool:
    return pod.phase in ("Succeeded", "Failed")


def _runs(pod: Pod) -> bool:
    """Whether the base container has started."""
    for status in (pod.status and pod.status.container_statuses) or ():
        state = status.state
        if status.name == BASE and state is not None:
            return state.running is not None or state.terminated is not None
    return False
