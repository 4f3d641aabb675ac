"""One launch from its permission to what is known of its pod.

FAILED needs proof that there is no pod. A request that got no answer may still
create one until its permission ends, so a launch that is given up after such a
request is first looked for, and waits until that moment before absence counts.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from kbroker import launch_reasons
from kbroker.api_calls import ApiCalls, CallFailed
from kbroker.errors import ExecutorConfigError, MutationHookError, TemplateError
from kbroker.event import Cause, PodEvent, PodState
from kbroker.kube_client import ApiError
from kbroker.launch_reply import Refused
from kbroker.manifests import Manifests
from kbroker.message import LaunchMessage
from kbroker.naming import attempt_from_annotations, pod_name
from kbroker.pace import Lane
from kbroker.permission import NoRoom, Permission
from kbroker.pod import Pod, seconds
from kbroker.pod_status import pod_event
from kbroker.record_scripts import launch_item
from kbroker.retry import Action, Decision, park_delay
from kbroker.settings import LauncherSettings
from kbroker.work_item import Done, Leave, Outcome, Park, Report, WorkItem, failed, waiting
from kbroker.workload_delivery import Api as WorkloadApi
from kbroker.workload_delivery import WorkloadDelivery

log = logging.getLogger(__name__)

# Until a moment has passed by the API server's clock too, and on the network.
_MARGIN = 0.5
# As if it had been parked so often: it waits for the longest time.
_OFTEN = 30


class Pods(WorkloadApi, Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def create_pod(
        self, namespace: str, manifest: bytes, timeout: float | None = None
    ) -> bytes:
        """Create a pod from its manifest as JSON."""

    async def get_pod(self, namespace: str, name: str) -> bytes:
        """A pod as JSON."""


Ask = Callable[[LaunchMessage], Awaitable[Permission | Refused]]


@dataclass(slots=True)
class _Launch:
    """One launch being worked on."""

    item: WorkItem
    message: LaunchMessage
    permission: Permission
    maybe_until: int
    asked_again: bool = False


class PodCreation:
    """Creates pods and finds out what became of the requests.

    Args:
        pods: the API server.
        calls: repeats requests.
        manifests: builds what is created.
        settings: how long launches are parked.
        ask: asks for a new permission.
        rng: for the jitter.
    """

    def __init__(
        self,
        pods: Pods,
        calls: ApiCalls,
        manifests: Manifests,
        settings: LauncherSettings,
        *,
        ask: Ask,
        rng: random.Random,
    ) -> None:
        self._pods = pods
        self._calls = calls
        self._manifests = manifests
        self._settings = settings
        self._ask = ask
        self._rng = rng
        self._workloads = WorkloadDelivery(pods, calls)

    async def launch(
        self, item: WorkItem, message: LaunchMessage, permission: Permission | NoRoom | Refused
    ) -> Outcome:
        """Create the pod, or find it, or say why there is none."""
        if isinstance(permission, Refused):
            return await self._refused(item, message, permission)
        if isinstance(permission, NoRoom):
            waits = _Launch(item, message, permission.permission, 0)
            return self._without_room(waits, permission.why, asked=False)
        maybe = item.parking.maybe_until
        if item.deliveries > 1:
            # Whoever had it before may have sent a request under an earlier grant,
            # which ended at this one's end at the latest.
            maybe = max(maybe, permission.create_before)
        return await self._create(_Launch(item, message, permission, maybe))

    async def _refused(self, item: WorkItem, message: LaunchMessage, refused: Refused) -> Outcome:
        """What follows from a refused permission."""
        # A killed launcher may have left its pod without its workload.
        unfinished = refused.why == "launched" and message.workload is not None
        if refused.why != "expired" and not unfinished:
            log.debug(
                "%s is not launched: %s",
                message.attempt.launch.key,
                refused.why,
                extra={"action": "refused", "pod": pod_name(message.attempt)},
            )
            return Done()
        now = self._calls.monotonic()
        permission = Permission(refused.create_before, refused.now, now, now)
        maybe = max(item.parking.maybe_until, refused.create_before)
        launch = _Launch(item, message, permission, maybe)
        if unfinished:
            return await self._finish(launch)
        return await self._give_up(
            launch, Cause.EXPIRED, launch_reasons.expired(message, refused.now)
        )

    def not_ready(self, item: WorkItem, message: LaunchMessage, now: int, why: str) -> Outcome:
        """The launcher itself is refused: the launch waits for another, or for better times."""
        event = waiting(message, Cause.UNREACHABLE, launch_reasons.not_ready(why))
        if item.entry is not None:
            return Leave(event)
        return self._parked(item, event, now, item.parking.maybe_until)

    async def _create(self, launch: _Launch) -> Outcome:
        message, permission = launch.message, launch.permission
        try:
            manifest = self._manifests.body(message, permission.create_before)
        except (ExecutorConfigError, MutationHookError, TemplateError) as error:
            return await self._give_up(launch, Cause.CONFIG_ERROR, str(error))
        try:
            body = await self._calls.run(
                lambda timeout: self._pods.create_pod(message.namespace, manifest, timeout),
                deadline=permission.deadline,
                lane=Lane.CREATE,
            )
        except CallFailed as failure:
            if failure.unanswered:
                launch.maybe_until = max(launch.maybe_until, permission.create_before)
            return await self._after(launch, failure.decision)
        # Nothing of its status is known yet: the API server lets no create set it.
        return await self._launched(launch, Pod.decode(body), None)

    async def _after(self, launch: _Launch, decision: Decision) -> Outcome:
        """What follows from a create that did not succeed."""
        match decision.action:
            case Action.EXISTS:
                return await self._held(launch)
            case Action.LATE:
                return await self._late(launch)
            case Action.PERMANENT:
                return await self._give_up(
                    launch, decision.cause or Cause.ADMISSION, decision.message
                )
        return self._set_aside(launch, decision)

    async def _finish(self, launch: _Launch) -> Outcome:
        """See that the known pod of a launch has its workload."""
        try:
            pod = await self._look(launch)
        except CallFailed as failure:
            return self._blind(launch, failure)
        if pod is None or attempt_from_annotations(pod.annotations) != launch.message.attempt:
            return Done()
        return await self._found(launch, pod)

    async def _held(self, launch: _Launch) -> Outcome:
        """The name is taken: by our own pod, which is success, or by another."""
        try:
            pod = await self._look(launch)
        except CallFailed as failure:
            return self._blind(launch, failure)
        if pod is not None:
            return await self._holder(launch, pod)
        # It was there a moment ago and may have been ours: until the watcher has
        # told how it ended, another one could be its second run.
        launch.maybe_until = max(launch.maybe_until, launch.permission.create_before)
        return self._await_proof(launch, "a pod of this name has just been deleted")

    async def _holder(self, launch: _Launch, pod: Pod) -> Outcome:
        if attempt_from_annotations(pod.annotations) == launch.message.attempt:
            return await self._found(launch, pod)
        return Report(failed(launch.message, Cause.ADMISSION, launch_reasons.held_by(pod)))

    async def _late(self, launch: _Launch) -> Outcome:
        """The API server's clock is past the permission's end: look, and ask again."""
        try:
            pod = await self._look(launch)
        except CallFailed as failure:
            return self._blind(launch, failure)
        if pod is not None:
            return await self._holder(launch, pod)
        if launch.asked_again:
            return self._set_aside(
                launch,
                Decision(
                    Action.PARK,
                    0.0,
                    Cause.ADMISSION,
                    "the time to create it was over as soon as it was granted; "
                    "do the clocks of Redis and of the API server differ?",
                ),
            )
        permission = await self._ask(launch.message)
        if isinstance(permission, Refused):
            return await self._refused(launch.item, launch.message, permission)
        return await self._create(replace(launch, permission=permission, asked_again=True))

    async def _give_up(self, launch: _Launch, cause: Cause, why: str) -> Outcome:
        """There will be no pod: FAILED, once it is certain that there is none already."""
        if not launch.maybe_until:
            return Report(failed(launch.message, cause, why))
        asked = launch.permission.time(self._calls.monotonic())
        try:
            pod = await self._look(launch)
        except CallFailed as failure:
            return self._blind(launch, failure)
        if pod is not None and attempt_from_annotations(pod.annotations) == launch.message.attempt:
            return await self._found(launch, pod)
        if asked <= launch.maybe_until:
            return self._await_proof(launch, why)
        return Report(failed(launch.message, cause, why))

    async def _look(self, launch: _Launch) -> Pod | None:
        """The pod that has this attempt's name."""
        message = launch.message

        async def request(_timeout: float) -> Pod | None:
            try:
                body = await self._pods.get_pod(message.namespace, pod_name(message.attempt))
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            return Pod.decode(body)

        return await self._calls.run(request)

    async def _found(self, launch: _Launch, pod: Pod) -> Outcome:
        event = pod_event("ADDED", pod, launch.message.attempt, launch.message.cluster)
        return await self._launched(launch, pod, event)

    async def _launched(self, launch: _Launch, pod: Pod, event: PodEvent | None) -> Outcome:
        log.debug(
            "launched pod %s (%s)",
            pod.name,
            pod.uid,
            extra={"action": "launched", "pod": pod.name, "uid": pod.uid},
        )
        report = Report(
            event or _just_created(pod, launch.message), found_room=bool(launch.permission.full)
        )
        workload = launch.message.workload
        if workload is None or report.event.state is not PodState.PENDING:
            return report
        problem = await self._workloads.deliver(launch.message, workload, pod)
        if problem is None:
            return report
        if problem.action is Action.PERMANENT:
            return report.changed(verdict=(problem.cause or Cause.ADMISSION, problem.message))
        launch.maybe_until = max(launch.maybe_until, launch.permission.create_before)
        return self._set_aside(launch, problem)

    def _blind(self, launch: _Launch, failure: CallFailed) -> Outcome:
        """The pod could not even be looked for."""
        launch.maybe_until = max(launch.maybe_until, launch.permission.create_before)
        decision = failure.decision
        return self._set_aside(launch, replace(decision, cause=decision.cause or Cause.UNREACHABLE))

    def _set_aside(self, launch: _Launch, decision: Decision) -> Outcome:
        now = launch.permission.time(self._calls.monotonic())
        if decision.action is Action.CREDENTIALS:
            item = launch.item
            if launch.maybe_until and item.entry is not None:
                # A left entry would forget that a request got no answer.
                why = launch_reasons.not_ready(decision.message)
                event = waiting(launch.message, Cause.UNREACHABLE, why)
                return self._parked(item, event, now, launch.maybe_until)
            return self.not_ready(item, launch.message, now, decision.message)
        cause = decision.cause or Cause.UNREACHABLE
        if cause is Cause.QUOTA:
            return self._without_room(launch, launch_reasons.no_room(decision.message), asked=True)
        event = waiting(launch.message, cause, launch_reasons.waits(cause, decision.message))
        delay = park_delay(launch.item.parking.times, self._settings, self._rng)
        return self._parked(
            launch.item, event, now, launch.maybe_until, delay=decision.after + delay
        )

    def _without_room(self, launch: _Launch, why: str, *, asked: bool) -> Park:
        """Others may look for room on its behalf; after its delay it asks all the same.

        Who was refused by the API server is the one that tells the others: its delay is that
        of any parked launch, because what it told may be lost with the reply.
        """
        now = launch.permission.time(self._calls.monotonic())
        event = waiting(launch.message, Cause.QUOTA, launch_reasons.waits(Cause.QUOTA, why))
        times = launch.item.parking.times if asked or launch.maybe_until else _OFTEN
        delay = park_delay(times, self._settings, self._rng)
        if launch.message.expires_at is not None:
            delay = min(delay, max(0.0, launch.message.expires_at - now) / 1000 + _MARGIN)
        parked = self._parked(launch.item, event, now, launch.maybe_until, delay=delay)
        return parked.changed(no_room=why if asked else "")

    def _await_proof(self, launch: _Launch, why: str) -> Park:
        now = launch.permission.time(self._calls.monotonic())
        left = max(0.0, (launch.maybe_until - now) / 1000) + _MARGIN
        event = waiting(
            launch.message,
            Cause.UNREACHABLE,
            f"an earlier request may still create the pod: {why}",
        )
        return self._parked(launch.item, event, now, launch.maybe_until, delay=left)

    def _parked(
        self,
        item: WorkItem,
        event: PodEvent,
        now: int,
        maybe_until: int,
        delay: float | None = None,
    ) -> Park:
        parking = item.parking.again(now).changed(maybe_until=maybe_until)
        if delay is None:
            delay = park_delay(item.parking.times, self._settings, self._rng)
        event = launch_reasons.since(event, parking.since)
        log.debug(
            "pod %s waits %.1f s: %s",
            event.pod,
            delay,
            event.message,
            extra={"action": "parked", "pod": event.pod, "cause": event.cause},
        )
        return Park(launch_item(event.attempt), delay, parking, event)


def _just_created(pod: Pod, message: LaunchMessage) -> PodEvent:
    return PodEvent(
        attempt=message.attempt,
        cluster=message.cluster,
        namespace=message.namespace,
        pod=pod.name,
        state=PodState.PENDING,
        uid=pod.uid or None,
        resource_version=pod.resource_version,
        at=seconds(pod.metadata.creation_timestamp),
    )
