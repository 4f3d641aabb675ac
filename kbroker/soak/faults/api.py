"""The API server that answers late, wrongly or not at all."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Iterator
from typing import Any

from kbroker.soak.faults.fault import Begin, Heal, Missed, fault, on_the_way
from kbroker.soak.stack import SoakStack

CREATE = {"verb": "create", "resource": "pods"}
_ANY = {"resource": "pods"}
_LANE = "api"
# Longer than a launcher waits for an answer, and than a grant is good for.
_PAST_TIMEOUT_MS, _PAST_WINDOW_MS = 3000, 7000
_FEW = 5


@contextlib.contextmanager
def rule(stack: SoakStack, match: dict[str, str], action: dict[str, Any]) -> Iterator[None]:
    """The API server misbehaves so for this long."""
    heal = begin_rule(stack, match, action)
    try:
        yield
    finally:
        with contextlib.suppress(Missed):
            heal()


def begin_rule(
    stack: SoakStack, match: dict[str, str], action: dict[str, Any], times: int | None = None
) -> Heal:
    """The API server misbehaves so until it is healed, or so many times."""
    name = uuid.uuid4().hex
    admin = stack.admin
    admin.post("/_local/faults", {"name": name, "match": match, "action": action, "times": times})

    def heal() -> None:
        if not admin.request("DELETE", "/_local/faults", {"name": name})["taken"]:
            raise Missed

    return heal


def _rule(match: dict[str, str], times: int | None = None, **action: Any) -> Begin:
    """Every request that matches, or so many of them, while it lasts."""
    return lambda stack, _rng: begin_rule(stack, match, action, times)


def _way(behaviour: str, *arguments: Any) -> Begin:
    """The launchers' way to the API server behaves so while it lasts."""
    return on_the_way(lambda stack: stack.launcher_way, behaviour, *arguments)


def _quota(stack: SoakStack, rng: random.Random) -> Heal:
    namespace = stack.config.kubernetes.namespace
    admin = stack.admin
    admin.post("/_local/quota", {"namespace": namespace, "pods": rng.randint(0, 5)})
    return lambda: admin.post("/_local/quota", {"namespace": namespace, "pods": None})


def _forbidden(stack: SoakStack, _rng: random.Random) -> Heal:
    stack.role.take()
    return stack.role.give


def _nameless(stack: SoakStack, rng: random.Random) -> Heal:
    """A launcher that has just started: others remember addresses for a while."""
    stack.nameless.touch()
    rng.choice(stack.launchers).kill()
    return stack.nameless.unlink


def _restored(stack: SoakStack, rng: random.Random) -> Heal:
    """Versions fall; what was changed since the snapshot is as before, what was deleted is back.

    Not where a pod was created since: of its run nobody would know.
    """
    admin = stack.admin
    admin.post("/_local/snapshot", {})
    since = {pod.uid for pod in stack.pods.all()}

    def heal() -> None:
        present = {pod.uid for pod in stack.pods.all()}
        # The server itself has to look: a pod may come between a look of ours and the restore.
        if "would_lose" in admin.post("/_local/restore", {"keep_pods": True}):
            raise Missed
        for uid in since - present:
            stack.hits[uid] = "restored"
        stack.role.give()

    return heal


_STATUSES = (500, 502, 503, 504)

FAULTS = [
    fault(
        "create_reply_lost",
        _LANE,
        _rule(CREATE, _FEW, reset="after"),
        "creates are carried out and their connections die",
        (1, 3),
        local=True,
    ),
    fault(
        "create_request_lost",
        _LANE,
        _rule(CREATE, _FEW, reset="before"),
        "connections die before the create is carried out",
        (1, 3),
        local=True,
    ),
    fault(
        "create_reply_late",
        _LANE,
        _rule(CREATE, _FEW, latency_after_ms=_PAST_TIMEOUT_MS),
        "creates are carried out, the answer comes after the timeout",
        (2, 4),
        local=True,
    ),
    fault(
        "create_held",
        _LANE,
        _rule(CREATE, _FEW, hold_ms=_PAST_WINDOW_MS),
        "creates are held back for longer than create_window",
        (7, 8),
        local=True,
    ),
    fault(
        "api_throttled",
        _LANE,
        _rule(_ANY, status=429, retry_after=1),
        "every request gets 429 with Retry-After",
        (1, 3),
        local=True,
    ),
    *(
        fault(
            f"api_{status}",
            _LANE,
            _rule(_ANY, status=status),
            f"every request gets {status}",
            (1, 4),
            local=True,
        )
        for status in _STATUSES
    ),
    fault(
        "api_conflict",
        _LANE,
        _rule(_ANY, status=409, reason="Conflict", message="the object has been modified"),
        "every request gets 409: the object has been modified",
        (0.5, 2),
        local=True,
    ),
    fault(
        "api_quota",
        _LANE,
        _quota,
        "the namespace's quota is exhausted for a while",
        (2, 6),
        local=True,
    ),
    fault(
        "api_forbidden",
        _LANE,
        _forbidden,
        "the launchers lose their role for a while",
        (2, 6),
        local=True,
    ),
    fault(
        "api_slow",
        _LANE,
        _rule(_ANY, latency={"p50_ms": 200, "p99_ms": 1500}),
        "every answer takes its time",
        (2, 6),
        local=True,
    ),
    fault(
        "api_reply_cut",
        _LANE,
        _way("cut_replies", _FEW),
        "connections are cut between request and answer",
        (1, 3),
    ),
    fault(
        "api_request_cut",
        _LANE,
        _way("cut_requests", _FEW),
        "connections are cut before the request arrives",
        (1, 3),
    ),
    fault(
        "api_reply_held",
        _LANE,
        _way("hold_replies", _PAST_TIMEOUT_MS / 1000, _FEW),
        "answers are held back on the network",
        (2, 4),
    ),
    fault("api_black_hole", _LANE, _way("black_hole"), "nothing comes back", (1, 6)),
    fault(
        "api_nameless",
        _LANE,
        _nameless,
        "a launcher starts, and cannot resolve the API server's name for a while",
        (3, 6),
    ),
    fault("api_refused", _LANE, _way("refuse"), "connections are refused", (1, 4)),
    fault("api_tls_broken", _LANE, _way("garble", 10), "TLS handshakes fail", (1, 3)),
    fault(
        "api_restored",
        _LANE,
        _restored,
        "the API server goes back to an earlier backup; versions fall",
        (1, 3),
        alone=True,
        local=True,
    ),
]
