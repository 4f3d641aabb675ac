"""Requests to the API server, repeated as `retry.decide` says.

`retry` decides and tenacity carries it out; what is left when it gives up is a
`CallFailed` with the decision. The launcher's own credentials and the shared pace
stand in front of every request.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from kbroker.event import Cause
from kbroker.flight import Flight
from kbroker.kube_client import ApiError
from kbroker.latency import Latency
from kbroker.pace import Lane
from kbroker.retry import Action, ApiFailure, Decision, decide
from kbroker.settings import LauncherSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

_THROTTLED = "it asked all launchers to come back later, or takes fewer creates than wait"
# Below this many seconds a request could not be answered in time.
_TOO_SHORT = 0.01


class Pace(Protocol):
    """See `SharedPace`."""

    @property
    def pause(self) -> float:
        """Seconds to wait before the next request."""

    async def turn(self, lane: Lane, ends: float) -> bool:
        """Wait until a request may be sent."""

    def done(self) -> None:
        """A pod was created or removed."""

    async def refused(self, seconds: float | None) -> None:
        """The API server had too much to do; it asked for this pause."""

    async def complain(self, seconds: float | None = None) -> None:
        """The API server takes ever longer."""


class Identity(Protocol):
    """See `LauncherIdentity`."""

    async def renewed(self, failure: ApiFailure) -> bool:
        """Whether credentials that were refused are good again."""


class CallFailed(Exception):  # noqa: N818 - an answer to work on, not a fault
    """A request was given up.

    Args:
        decision: what to do about it.
        unanswered: whether one of its tries may have been carried out unseen.
        status: of the last answer; 0 for none.
    """

    def __init__(self, decision: Decision, *, unanswered: bool, status: int = 0) -> None:
        super().__init__(decision.message)
        self.decision = decision
        self.unanswered = unanswered
        self.status = status

    @property
    def guarded(self) -> str:
        """Why, in words that quote nothing of what was sent: other refusals may."""
        if self.status in (0, 403, 404):
            return self.decision.message
        return f"the API server answers {self.status}"


class _Again(Exception):  # noqa: N818 - tells tenacity to go on
    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


@dataclass(slots=True)
class _Progress:
    """How one request is going."""

    started: float
    failures: int = 0
    unanswered: bool = False
    renewed: bool = False
    last: Decision = field(default=Decision(Action.PARK, 0.0, Cause.UNREACHABLE, "no time left"))


class ApiCalls:
    """Carries out requests.

    Args:
        settings: bounds of the waits.
        retry_budget: seconds after which a request is given up.
        request_timeout: longest wait for one answer, in seconds.
        at_once: creates that may be under way at once.
        pace: shared by all launchers of this API server.
        identity: what to do when the launcher itself is refused.
        rng: for the jitter.
        monotonic: seconds that never jump.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        settings: LauncherSettings,
        retry_budget: float,
        request_timeout: float,
        at_once: int,
        *,
        pace: Pace,
        identity: Identity,
        rng: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._budget = retry_budget
        self._timeout = request_timeout
        self._flight = Flight(at_once)
        self._pace = pace
        self._latency = Latency()
        self._identity = identity
        self._rng = rng
        self.monotonic = monotonic
        self._sleep = sleep

    async def run(
        self,
        request: Callable[[float], Awaitable[T]],
        *,
        deadline: float = math.inf,
        lane: Lane | None = None,
    ) -> T:
        """Carry out a request, given the seconds it may take, until it succeeds.

        Args:
            request: sends it once.
            deadline: monotonic seconds at which it is abandoned.
            lane: CREATE for what creates a pod: it waits for its turn each time. REMOVE for
                what removes one: it is given up as soon as the API server has too much to do.

        Raises:
            CallFailed: it was given up.
        """
        progress = _Progress(self.monotonic())
        # Nearly every request succeeds at once; it need not pay for the machinery.
        try:
            return await self._once(request, deadline, lane, progress)
        except _Again as again:
            wait = again.wait
        await self._sleep(wait)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Again), wait=_decided, sleep=self._sleep
        )
        result: T = await retrying(self._once, request, deadline, lane, progress)
        return result

    async def admit_removal(self, within: float) -> bool:
        """Whether a removal's turn comes within so many seconds; waits for it."""
        return await self._pace.turn(Lane.REMOVE, self.monotonic() + within)

    def removed(self) -> None:
        """A pod was removed."""
        self._pace.done()

    async def _once(
        self,
        request: Callable[[float], Awaitable[T]],
        deadline: float,
        lane: Lane | None,
        progress: _Progress,
    ) -> T:
        try:
            if lane is not Lane.CREATE:
                return await request(self._time_left(deadline, progress))
            # Whoever waits for a connection must still hear that the API server complains.
            async with self._flight:
                await self._keep_pace(deadline, progress)
                return await self._create(request, self._time_left(deadline, progress))
        except ApiError as error:
            await self._judge(error.failure, deadline, lane, progress)

    def _time_left(self, deadline: float, progress: _Progress) -> float:
        left = deadline - self.monotonic()
        if left < _TOO_SHORT:
            raise CallFailed(_parked(progress.last), unanswered=progress.unanswered)
        return min(left, self._timeout)

    async def _create(self, request: Callable[[float], Awaitable[T]], timeout: float) -> T:
        began = self.monotonic()
        try:
            answer = await request(timeout)
        except ApiError as error:
            if error.failure.reason == "timeout":
                now = self.monotonic()
                if self._latency.rises(now - began, now):
                    await self._pace.complain()
            raise
        seconds = self.monotonic() - began
        self._pace.done()
        self._flight.grow(seconds)
        if self._latency.rises(seconds, began + seconds):
            await self._pace.complain()
        return answer

    async def _judge(
        self, failure: ApiFailure, deadline: float, lane: Lane | None, progress: _Progress
    ) -> NoReturn:
        """Raise what is to be done next."""
        progress.failures += 1
        if failure.sent and (failure.status == 0 or failure.status >= 500):
            progress.unanswered = True
        now = self.monotonic()
        budget = min(self._budget, deadline - progress.started)
        decision = decide(
            failure,
            progress.failures,
            now - progress.started,
            budget,
            self._settings,
            self._rng,
        )
        if failure.status in (429, 503) or failure.retry_after is not None:
            self._flight.shrink()
            await self._pace.refused(failure.retry_after)
        if decision.action is Action.CREDENTIALS:
            decision = await self._renew(failure, decision, progress)
        if lane is Lane.REMOVE and decision.cause is Cause.THROTTLED:
            decision = _parked(decision)
        if decision.action is Action.RETRY:
            progress.last = decision
            raise _Again(decision.after)
        raise CallFailed(decision, unanswered=progress.unanswered, status=failure.status)

    async def _renew(
        self, failure: ApiFailure, decision: Decision, progress: _Progress
    ) -> Decision:
        if not progress.renewed:
            progress.renewed = True
            if await self._identity.renewed(failure):
                return Decision(Action.RETRY, 0.0, decision.cause, decision.message)
            return decision
        if failure.status == 403:
            # The launcher may do its work where it is configured to: this one pod is
            # for another namespace, or is refused for another reason.
            return Decision(Action.PERMANENT, 0.0, Cause.ADMISSION, failure.message)
        return _parked(decision)

    async def _keep_pace(self, deadline: float, progress: _Progress) -> None:
        if await self._pace.turn(Lane.CREATE, min(deadline, progress.started + self._budget)):
            return
        decision = Decision(Action.PARK, self._pace.pause, Cause.THROTTLED, _THROTTLED)
        raise CallFailed(decision, unanswered=progress.unanswered)


def _parked(decision: Decision) -> Decision:
    return Decision(Action.PARK, decision.after, decision.cause, decision.message)


def _decided(state: RetryCallState) -> float:
    """The wait that the decision asked for."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error.wait if isinstance(error, _Again) else 0.0
