"""One pod's log as the API server gives it, within a time; why there is none, in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Protocol, TypeVar

from kbroker.event import PodEvent, PodState
from kbroker.kube_client import ApiError
from kbroker.kube_events import kube_events
from kbroker.log_message import MOST_BYTES, LogAnswer, LogRequest
from kbroker.naming import attempt_from_annotations
from kbroker.pod import BASE, Pod
from kbroker.pod_status import pod_event
from kbroker.retry import is_own_permission

T = TypeVar("T")

# The API server cuts what comes last, so that a log that reaches the limit has to be read anew,
# from further back. It may be somewhat shorter than the limit, and cut all the same.
_LIMIT = 4 * MOST_BYTES
_CUT = _LIMIT - 65_536
_EVENTS = 10
_EVENT_LENGTH = 1000  # characters
# What these have to say stands in their log.
_SPEAK = frozenset({PodState.RUNNING, PodState.SUCCEEDED})


class Pods(Protocol):
    """What is asked of the API server; see `KubeClient`."""

    async def get_pod(self, namespace: str, name: str) -> bytes:
        """A pod as JSON."""

    async def pod_events(self, namespace: str, name: str, uid: str) -> bytes:
        """The events about one pod: an EventList as JSON."""

    def pod_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str = BASE,
        tail: int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The log of one container, in pieces as they come."""


class _NoAnswer(Exception):  # noqa: N818 - an answer to pass on, not a fault
    """There is no answer to a request.

    Args:
        status: HTTP status; 0 where nobody answered.
        why: in words.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class LogReading:
    """Reads logs.

    Args:
        pods: the API server.
    """

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    async def read(self, request: LogRequest, ends: float) -> LogAnswer:
        """What can be told by then; whatever fails is told in words.

        Args:
            request: which pod.
            ends: when it must be told, by the event loop's clock.
        """
        try:
            pod = await self._pod(request, ends)
        except _NoAnswer as failure:
            return LogAnswer(notes=(str(failure),))
        notes: list[str] = []
        if pod is not None and request.uid not in (None, pod.uid):
            notes.append("another pod has taken its name")
            pod = None
        if pod is None:
            events = await self._events(request, ends, notes)
            return LogAnswer(exists=False, events=events, notes=tuple(notes))
        event = _event(request, pod)
        if event is None:
            return LogAnswer(notes=(f"the pod is not one of deployment {request.deployment!r}",))
        events, text = (), b""
        # The events first: a log may take all of the time, as when its node does not answer.
        if event.state not in _SPEAK:
            events = await self._events(request, ends, notes)
        if event.state is not PodState.PENDING:
            text = await self._text(request, ends, notes)
        return LogAnswer(
            exists=True,
            text=text.decode(errors="replace"),
            state=event.state,
            why=event.message or "",
            events=events,
            notes=tuple(notes),
        )

    async def _pod(self, request: LogRequest, ends: float) -> Pod | None:
        """The pod of that name; None where there is none."""
        step = self._pods.get_pod(request.namespace, request.pod)
        try:
            return Pod.decode(await _answer(step, ends, "get pods", request))
        except _NoAnswer as failure:
            if failure.status == 404:
                return None
            raise
        except ValueError as error:
            raise _NoAnswer(0, f"the Kubernetes API sends no pod: {error}") from error

    async def _events(self, request: LogRequest, ends: float, notes: list[str]) -> tuple[str, ...]:
        """The newest events; none where they cannot be read, which is noted."""
        step = self._pods.pod_events(request.namespace, request.pod, request.uid or "")
        try:
            found = kube_events(await _answer(step, ends, "list events", request))
        except (_NoAnswer, ValueError) as failure:
            notes.append(f"its events cannot be read: {failure}")
            return ()
        told = (f"{event.reason}: {event.message}"[:_EVENT_LENGTH] for event in found[-_EVENTS:])
        return tuple(" ".join(text.split()) for text in told)

    async def _text(self, request: LogRequest, ends: float, notes: list[str]) -> bytes:
        """The end of the log; nothing where it cannot be read, which is noted."""
        lines = request.lines
        while True:
            try:
                text = await _answer(self._tail(request, lines), ends, "get pods/log", request)
            except _NoAnswer as failure:
                # A container that has never started has none, for one.
                none = (
                    "there is no log" if failure.status in (400, 404) else "its log cannot be read"
                )
                notes.append(f"{none}: {failure}")
                return b""
            if len(text) < _CUT:
                break
            if lines == 1:
                notes.append("its last line is too long to be shown")
                return b""
            lines = max(1, lines * MOST_BYTES // _LIMIT)
        if len(text) > MOST_BYTES or lines < request.lines:
            text = text[-MOST_BYTES:]
            text = text.partition(b"\n")[2] or text  # without what is left of a line
            notes.append(f"not all that was asked for is shown: it is over {MOST_BYTES} bytes")
        return text

    async def _tail(self, request: LogRequest, lines: int) -> bytes:
        pieces = self._pods.pod_log(
            request.namespace, request.pod, container=BASE, tail=lines, limit=_LIMIT
        )
        async with aclosing(pieces):
            return b"".join([piece async for piece in pieces])


def _event(request: LogRequest, pod: Pod) -> PodEvent | None:
    """How a pod stands; None where it is not one of the deployment."""
    attempt = attempt_from_annotations(pod.annotations)
    if attempt is None or attempt.launch.deployment != request.deployment:
        return None
    return pod_event("ADDED", pod, attempt, request.cluster)


async def _answer(step: Awaitable[T], ends: float, what: str, request: LogRequest) -> T:
    """The answer to a request; `what` is the permission that it needs.

    Raises:
        _NoAnswer: there is none, or not in time.
    """
    try:
        async with asyncio.timeout_at(ends):
            return await step
    except TimeoutError:
        why = f"the Kubernetes API did not answer in time ({what})"
        raise _NoAnswer(0, why) from None
    except ApiError as error:
        raise _NoAnswer(error.status, _why(error, what, request.namespace)) from error


def _why(error: ApiError, what: str, namespace: str) -> str:
    if error.status == 403 and is_own_permission(error.failure):
        return (
            f"the launcher has no permission to {what} in namespace {namespace!r}: "
            "grant it, as config/kubernetes/launcher.yaml does"
        )
    if error.status == 401:
        return "the Kubernetes API refuses the launcher's credentials"
    if error.status:
        return f"the Kubernetes API answers {error.status}: {error}"
    return f"the Kubernetes API cannot be used: {error}"
