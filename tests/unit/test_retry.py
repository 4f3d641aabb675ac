"""What is done about each answer of the API server; the messages are real ones."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.event import Cause
from kbroker.retry import Action, ApiFailure, Decision, backoff, decide, park_delay
from kbroker.settings import LauncherSettings

SETTINGS = LauncherSettings()
BUDGET = 20.0

POLICY = (
    "pods \"dag-task-0123\" is forbidden: ValidatingAdmissionPolicy 'kbroker-create-before' "
    "with binding 'kbroker-create-before' denied request: creation time is past "
    "kbroker/create-before"
)
QUOTA = (
    'pods "a" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=10, '
    "limited: pods=10"
)
RBAC = (
    'pods is forbidden: User "system:serviceaccount:jobs:launcher" cannot create resource '
    '"pods" in API group "" in the namespace "jobs"'
)
ANONYMOUS = (
    'pods "a" is forbidden: User "system:anonymous" cannot delete resource "pods" in API group '
    '"" in the namespace "jobs": RBAC: clusterrole "x" not found'
)


def after(
    failure: ApiFailure,
    attempt: int = 1,
    elapsed: float = 0.0,
    *,
    budget: float = BUDGET,
    settings: LauncherSettings = SETTINGS,
    seed: int = 0,
) -> Decision:
    return decide(failure, attempt, elapsed, budget, settings, random.Random(seed))


TABLE: list[tuple[int, str, str, Action, Cause | None]] = [
    (409, "AlreadyExists", 'pods "a" already exists', Action.EXISTS, None),
    (
        409,
        "Conflict",
        'Operation cannot be fulfilled on resourcequotas "compute": the object has been '
        "modified; please apply your changes to the latest version and try again",
        Action.RETRY,
        Cause.UNREACHABLE,
    ),
    (422, "Invalid", POLICY, Action.LATE, None),
    (
        422,
        "Invalid",
        'Pod "a" is invalid: spec.containers[0].image: Required value',
        Action.PERMANENT,
        Cause.ADMISSION,
    ),
    (  # a task may be called like the policy
        422,
        "Invalid",
        'Pod "kbroker-create-before-task-0123" is invalid: spec.containers: Required value',
        Action.PERMANENT,
        Cause.ADMISSION,
    ),
    (429, "TooManyRequests", "the server has received too many", Action.RETRY, Cause.THROTTLED),
    (500, "InternalError", "etcdserver: leader changed", Action.RETRY, Cause.UNREACHABLE),
    (
        500,
        "InternalError",
        'Internal error occurred: failed calling webhook "w.example.com": connection refused',
        Action.RETRY,
        Cause.UNREACHABLE,
    ),
    (502, "Bad Gateway", "<html> 502 Bad Gateway </html>", Action.RETRY, Cause.UNREACHABLE),
    (503, "ServiceUnavailable", "apiserver is shutting down", Action.RETRY, Cause.UNREACHABLE),
    (504, "Timeout", "request did not complete in time", Action.RETRY, Cause.UNREACHABLE),
    (0, "dns", "unknown host api.example.com", Action.RETRY, Cause.UNREACHABLE),
    (0, "refused", "Connect call failed", Action.RETRY, Cause.UNREACHABLE),
    (0, "reset", "Server disconnected", Action.RETRY, Cause.UNREACHABLE),
    (0, "timeout", "no answer in time", Action.RETRY, Cause.UNREACHABLE),
    (0, "tls", "certificate has expired", Action.RETRY, Cause.UNREACHABLE),
    (302, "Found", "HTTP 302 Found", Action.RETRY, Cause.UNREACHABLE),  # a login page in front
    (401, "Unauthorized", "Unauthorized", Action.CREDENTIALS, Cause.UNREACHABLE),
    (403, "Forbidden", RBAC, Action.CREDENTIALS, Cause.UNREACHABLE),
    (403, "Forbidden", ANONYMOUS, Action.CREDENTIALS, Cause.UNREACHABLE),
    (403, "Forbidden", QUOTA, Action.PARK, Cause.QUOTA),
    (  # a limit that a pod of this kind never meets, whatever else ends
        403,
        "Forbidden",
        'pods "a" is forbidden: failed quota: compute: must specify limits.cpu for: base',
        Action.PERMANENT,
        Cause.ADMISSION,
    ),
    (
        403,
        "Forbidden",
        'pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        Action.PERMANENT,
        Cause.ADMISSION,
    ),
    (  # the words of a webhook, not of RBAC
        403,
        "Forbidden",
        'admission webhook "w.example.com" denied the request: a pod cannot use resource limits '
        "above 8 CPUs",
        Action.PERMANENT,
        Cause.ADMISSION,
    ),
    (400, "BadRequest", "Pod in version v1 cannot be handled", Action.PERMANENT, Cause.ADMISSION),
    (404, "NotFound", 'namespaces "none" not found', Action.PERMANENT, Cause.ADMISSION),
    (413, "RequestEntityTooLarge", "limit is 3145728", Action.PERMANENT, Cause.ADMISSION),
    (415, "UnsupportedMediaType", "unsupported", Action.PERMANENT, Cause.ADMISSION),
]


@pytest.mark.parametrize(
    ("status", "reason", "message", "action", "cause"),
    TABLE,
    ids=[f"{status} {message[:40]}" for status, _, message, _, _ in TABLE],
)
def test_every_row(
    status: int, reason: str, message: str, action: Action, cause: Cause | None
) -> None:
    decision = after(ApiFailure(status, reason, message))
    assert (decision.action, decision.cause) == (action, cause)
    if cause is not None:
        assert decision.message == message  # the task's author reads the API's own words


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "waited"), [(1.0, 1.0), (7.0, 7.0), (30.0, 30.0), (3600.0, 30.0)]
)
def test_retry_after_is_obeyed_up_to_the_cap(status: int, asked: float, waited: float) -> None:
    decision = after(ApiFailure(status, "", "busy", asked), budget=60.0)
    assert decision == Decision(Action.RETRY, waited, Cause.THROTTLED, "busy")


@pytest.mark.parametrize("asked", [None, 0.0, -3.0])
def test_a_429_that_does_not_say_how_long_is_backed_off(asked: float | None) -> None:
    waits = [
        after(ApiFailure(429, "", "busy", asked), attempt, seed=seed).after
        for attempt in (1, 8)
        for seed in range(50)
    ]
    assert min(waits) >= 0
    assert max(waits[:50]) <= SETTINGS.retry_base < max(waits[50:]) <= SETTINGS.retry_max


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (ApiFailure(429, "", "busy", 25.0), Cause.THROTTLED),
        (ApiFailure(503, "", "overloaded", 25.0), Cause.THROTTLED),
    ],
)
def test_a_wait_beyond_the_budget_parks_for_as_long(failure: ApiFailure, cause: Cause) -> None:
    assert after(failure) == Decision(Action.PARK, 25.0, cause, failure.message)


@pytest.mark.parametrize("status", [0, 409, 429, 500, 502, 503, 504])
def test_the_budget_ends_every_retry(status: int) -> None:
    failure = ApiFailure(status, "Conflict" if status == 409 else "", "no")
    assert after(failure, elapsed=0.0).action is Action.RETRY
    assert after(failure, attempt=9, elapsed=BUDGET + 0.001).action is Action.PARK
    assert after(failure, budget=-1.0).action is Action.PARK


def test_a_conflict_is_tried_again_at_once_with_jitter() -> None:
    failure = ApiFailure(409, "Conflict", "the object has been modified")
    waits = {after(failure, attempt=5, seed=seed).after for seed in range(50)}
    assert len(waits) == 50
    assert all(0 <= wait <= SETTINGS.retry_base for wait in waits)


@st.composite
def settings(draw: st.DrawFn) -> LauncherSettings:
    number = st.floats(0.0, 100.0)
    values: dict[str, Any] = {
        key: draw(number)
        for key in ("retry_base", "retry_max", "retry_after_max", "park_base", "park_max")
    }
    return LauncherSettings(**values)


class Top(random.Random):
    """Draws the largest value, so that a wait is its ceiling."""

    def random(self) -> float:
        return 1.0


@given(
    st.sampled_from([0, 302, 400, 401, 403, 409, 422, 429, 500, 502, 503, 504]),
    st.text(max_size=20),
    st.none() | st.floats(-10.0, 1e9),
    st.integers(1, 10**6),
    st.floats(0.0, 1e6),
    st.floats(-10.0, 1e6),
    settings(),
    st.integers(),
)
def test_every_wait_is_bounded(
    status: int,
    text: str,
    retry_after: float | None,
    attempt: int,
    elapsed: float,
    budget: float,
    bounds: LauncherSettings,
    seed: int,
) -> None:
    failure = ApiFailure(status, text, text, retry_after)
    decision = decide(failure, attempt, elapsed, budget, bounds, random.Random(seed))
    longest = max(bounds.retry_max, bounds.retry_after_max, bounds.retry_base)
    assert 0 <= decision.after <= longest
    if decision.action is Action.RETRY:
        assert elapsed + decision.after <= budget


@given(settings(), st.integers(1, 200), st.integers())
def test_back_off_has_full_jitter_below_a_ceiling_that_never_falls(
    bounds: LauncherSettings, attempt: int, seed: int
) -> None:
    ceiling = backoff(attempt, bounds, Top())
    assert 0 <= backoff(attempt, bounds, random.Random(seed)) <= ceiling <= bounds.retry_max
    assert ceiling <= backoff(attempt + 1, bounds, Top())


def test_back_off_doubles_from_the_base_to_the_maximum() -> None:
    ceilings = [backoff(attempt, SETTINGS, Top()) for attempt in range(1, 9)]
    assert ceilings == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


@given(settings(), st.integers(0, 200), st.integers())
def test_parking_backs_off_by_at_least_half(
    bounds: LauncherSettings, failures: int, seed: int
) -> None:
    ceiling = park_delay(failures, bounds, Top())
    assert ceiling / 2 <= park_delay(failures, bounds, random.Random(seed)) <= ceiling
    assert ceiling <= bounds.park_max
    assert ceiling <= park_delay(failures + 1, bounds, Top())
