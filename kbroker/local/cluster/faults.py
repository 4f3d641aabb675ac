"""Misbehaviour on demand, for tests: what a network and a real API server do at times."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from kbroker.local.cluster.failure import Failure

_MATCH = {"verb", "resource", "namespace", "name_prefix"}
_ACTION = {
    "latency_ms",
    "latency",
    "latency_after_ms",
    "hold_ms",
    "then",
    "status",
    "reason",
    "message",
    "retry_after",
    "reset",
    "plain",
    "rate_per_s",
}
# Standard deviations between the median and the 99th percentile.
_P99 = 2.326


_random = random.Random()


class PlainFailure(Exception):  # noqa: N818 - it is an answer
    """An answer that is not the API server's: a proxy's words in plain text."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Reset(Exception):  # noqa: N818 - it is what happens
    """The connection is to be cut without an answer."""


@dataclass
class Rule:
    """What happens to which requests.

    Attributes:
        match: verb, resource, namespace, name_prefix; what is left out matches all.
        action: one of latency_ms; latency, a distribution: {"p50_ms", "p99_ms"} log-normal or
            {"min_ms", "max_ms"} uniform; latency_after_ms; hold_ms; status (with reason,
            message, retry_after; with `plain`, as a proxy in front answers: no Status object);
            reset ("before" or "after" the commit); rate_per_s.
        times: how many requests it happens to; None for all.
        skip: how many matching requests go unharmed before.
        name: by which it can be taken back; "" for none.
        taken: how many requests it has happened to.
    """

    match: dict[str, str]
    action: dict[str, Any]
    times: int | None = None
    skip: int = 0
    name: str = ""
    taken: int = field(default=0, init=False)
    _tokens: float = field(default=0.0, init=False)
    _filled: float = field(default=0.0, init=False)

    def takes(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        """Whether it happens to this request; counts it."""
        given = {"verb": verb, "resource": resource, "namespace": namespace}
        if any(given[k] != v for k, v in self.match.items() if k in given):
            return False
        if not name.startswith(self.match.get("name_prefix", "")):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        self.taken += 1
        return True

    def admits(self) -> bool:
        """Whether a rate limit lets one more request pass."""
        rate = float(self.action["rate_per_s"])
        now = time.monotonic()
        self._tokens = min(rate, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: dict[str, Any]) -> None:
        """Add a rule from its JSON form.

        Raises:
            Failure: 400, it has a key that means nothing, or no action.
        """
        match, action = rule.get("match", {}), rule.get("action", {})
        unknown = (
            (set(rule) - {"match", "action", "times", "skip", "name"})
            | (set(match) - _MATCH)
            | (set(action) - _ACTION)
        )
        if unknown or not action:
            raise Failure(400, f"not a rule: {', '.join(sorted(unknown)) or 'no action'}")
        if "latency" in action:
            drawn(action["latency"], _random)
        times, skip = rule.get("times"), rule.get("skip", 0)
        self._rules.append(Rule(match, action, times, skip, rule.get("name", "")))

    def clear(self, name: str | None = None) -> int:
        """Behave again: forget the rules of this name, or all; how often they were taken."""
        ended = [rule for rule in self._rules if name in (None, rule.name)]
        self._rules = [rule for rule in self._rules if name not in (None, rule.name)]
        return sum(rule.taken for rule in ended)

    def taken(self, verb: str, resource: str, namespace: str, name: str) -> list[Rule]:
        """The rules that this request falls under."""
        if not self._rules:
            return []
        return [rule for rule in self._rules if rule.takes(verb, resource, namespace, name)]


async def before(rules: list[Rule]) -> None:
    """What happens before a request is carried out.

    Raises:
        Failure: the request is refused.
        Reset: the connection is cut.
    """
    for rule in rules:
        action = rule.action
        if "latency_ms" in action or "hold_ms" in action:
            await asyncio.sleep(action.get("latency_ms", action.get("hold_ms", 0)) / 1000)
        if "latency" in action:
            await asyncio.sleep(drawn(action["latency"], _random) / 1000)
        if action.get("reset") == "before":
            raise Reset
        if "status" in action:
            refused = _refusal(action)
            raise PlainFailure(refused) if action.get("plain") else refused
        if "rate_per_s" in action and not rule.admits():
            raise _refusal({"status": 429, "retry_after": action.get("retry_after", 1)})


async def after(rules: list[Rule]) -> None:
    """What happens between the commit and the answer.

    Raises:
        Reset: the connection is cut.
    """
    for rule in rules:
        if "latency_after_ms" in rule.action:
            await asyncio.sleep(rule.action["latency_after_ms"] / 1000)
        if rule.action.get("reset") == "after":
            raise Reset


def drawn(distribution: dict[str, float], rng: random.Random) -> float:
    """Milliseconds, from a distribution.

    Raises:
        Failure: 400, it is none that is known.
    """
    if set(distribution) == {"min_ms", "max_ms"}:
        return rng.uniform(distribution["min_ms"], distribution["max_ms"])
    if set(distribution) == {"p50_ms", "p99_ms"} and distribution["p50_ms"] > 0:
        median = math.log(distribution["p50_ms"])
        return rng.lognormvariate(median, (math.log(distribution["p99_ms"]) - median) / _P99)
    raise Failure(400, "latency needs p50_ms and p99_ms, or min_ms and max_ms")


def cut(request: web.Request) -> web.Response:
    """Abort the request's connection; the answer returned is never seen."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _refusal(action: dict[str, Any]) -> Failure:
    message = action.get("message", f"the local cluster was told to answer {action['status']}")
    return Failure(
        int(action["status"]),
        message,
        action.get("reason"),
        retryAfterSeconds=action.get("retry_after"),
    )
