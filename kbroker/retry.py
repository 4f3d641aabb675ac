"""What to do about a failed request to the API server. Pure: values in, a decision out.

Status codes and reasons are those of Kubernetes' API conventions
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import StrEnum

from kbroker.event import Cause
from kbroker.settings import LauncherSettings


@dataclass(frozen=True, slots=True)
class ApiFailure:
    """A request that did not succeed.

    Attributes:
        status: HTTP status; 0 when no answer came.
        reason: of the Status object, such as "AlreadyExists"; without an answer
            "dns", "refused", "reset", "timeout" or "tls".
        message: in the API server's words, or the operating system's.
        retry_after: seconds, where the API server asks for it.
        sent: whether the request may have reached the server.
    """

    status: int
    reason: str
    message: str
    retry_after: float | None = None
    sent: bool = True


class Action(StrEnum):
    """What to do."""

    RETRY = "retry"  # the same request again, after a wait
    PARK = "park"  # set the launch aside, with the reason
    PERMANENT = "permanent"  # it will never succeed
    EXISTS = "exists"  # look at who holds the name
    LATE = "late"  # the create-before policy refused it: look, then ask for a new grant
    CREDENTIALS = "credentials"  # the launcher itself is refused


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a failure.

    Attributes:
        action: what.
        after: seconds to wait first.
        cause: why the launch waits or fails.
        message: the same in words.
    """

    action: Action
    after: float = 0.0
    cause: Cause | None = None
    message: str = ""


CREATE_BEFORE_POLICY = "kbroker-create-before"
# How the API server says that a ValidatingAdmissionPolicy refused, and RBAC's refusal; a
# pod's name or the words of an admission webhook may contain parts of them.
_BY_POLICY = f"ValidatingAdmissionPolicy '{CREATE_BEFORE_POLICY}'"
_BY_ROLE = re.compile(r'is forbidden: User ".*" cannot [a-z]+ resource "')
_TRANSIENT = {500, 502, 503, 504}


def decide(
    failure: ApiFailure,
    attempt: int,
    elapsed: float,
    budget: float,
    settings: LauncherSettings,
    rng: random.Random,
) -> Decision:
    """Decide about the `attempt`-th failure (from 1) of one request.

    Args:
        failure: the answer, or why there was none.
        attempt: how often the request has failed, this time included.
        elapsed: seconds since the first try.
        budget: seconds after which the launch is parked instead of tried again.
        settings: bounds of the waits.
        rng: for the jitter.
    """
    if failure.status == 409:
        if failure.reason == "AlreadyExists":
            return Decision(Action.EXISTS)
        wait = settings.retry_base * rng.random()
        return _again(failure, wait, elapsed, budget, Cause.UNREACHABLE)
    if failure.status == 422 and _BY_POLICY in failure.message:
        return Decision(Action.LATE)
    if failure.status == 401 or (failure.status == 403 and is_own_permission(failure)):
        return Decision(Action.CREDENTIALS, 0.0, Cause.UNREACHABLE, failure.message)
    if failure.status == 403 and "exceeded quota" in failure.message:
        return Decision(Action.PARK, 0.0, Cause.QUOTA, failure.message)
    if failure.status == 429 or (failure.status == 503 and failure.retry_after is not None):
        # "At once" is not meant: it would be refused at once again.
        asked = max(0.0, failure.retry_after or 0.0) or backoff(attempt, settings, rng)
        wait = min(asked, settings.retry_after_max)
        return _again(failure, wait, elapsed, budget, Cause.THROTTLED)
    # The API server does not redirect: something in front of it does.
    if failure.status < 400 or failure.status in _TRANSIENT:
        return _again(failure, backoff(attempt, settings, rng), elapsed, budget, Cause.UNREACHABLE)
    return Decision(Action.PERMANENT, 0.0, Cause.ADMISSION, failure.message)


def backoff(attempt: int, settings: LauncherSettings, rng: random.Random) -> float:
    """Exponential back-off with full jitter: a random part of base · 2^(attempt-1), capped."""
    ceiling = min(settings.retry_max, settings.retry_base * 2.0 ** min(attempt - 1, 30))
    return ceiling * rng.random()


def park_delay(failures: int, settings: LauncherSettings, rng: random.Random) -> float:
    """How long a launch is set aside after it was parked `failures` times before."""
    ceiling = min(settings.park_max, settings.park_base * 2.0 ** min(failures, 30))
    return ceiling * (0.5 + 0.5 * rng.random())


def is_own_permission(failure: ApiFailure) -> bool:
    """Whether a 403 is about the launcher's own role, not about the pod.

    RBAC's refusals read `pods is forbidden: User "…" cannot create resource "pods" …`;
    quota and admission have other words.
    """
    return _BY_ROLE.search(failure.message) is not None


def _again(
    failure: ApiFailure, wait: float, elapsed: float, budget: float, cause: Cause
) -> Decision:
    if elapsed + wait > budget:
        return Decision(Action.PARK, wait, cause, failure.message)
    return Decision(Action.RETRY, wait, cause, failure.message)
