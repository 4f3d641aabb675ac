"""Signals that wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from kbroker.cli.deferred import DeferredSignals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(steps: list[str], error: Exception | None = None, *, check: bool = False) -> None:
    """Be interrupted, and note how far that gets."""
    with DeferredSignals() as signals:
        signals.check()
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("went on")
        if error is not None:
            raise error
        if check:
            signals.check()
        steps.append("came to the end")


def test_a_signal_waits_for_the_end() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(steps)
    assert steps == ["went on", "came to the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_or_for_a_check() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(steps, check=True)
    assert steps == ["went on"]


def test_an_error_goes_first() -> None:
    with pytest.raises(ValueError, match="mine"):
        interrupted([], ValueError("mine"))


def test_what_was_ignored_stays_so() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with DeferredSignals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
