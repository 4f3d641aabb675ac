"""What a fault is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kbroker.soak.plan import FaultShape
from kbroker.soak.proxy import TcpProxy
from kbroker.soak.stack import SoakStack

Heal = Callable[[], object]
Begin = Callable[[SoakStack, random.Random], Heal | None]


class Missed(Exception):  # noqa: N818 - it is what happened
    """Nothing was there that the fault could have met."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that may go wrong.

    Attributes:
        shape: its name, its lane and how long it lasts.
        begin: does it; returns how to heal it, where it does not pass by itself. Both raise
            `Missed` when nothing was met.
        meaning: what happens, in one line.
        local: whether it needs the local cluster's cooperation.
    """

    shape: FaultShape
    begin: Begin
    meaning: str
    local: bool = False


def on_the_way(way: Callable[[SoakStack], TcpProxy], behaviour: str, *arguments: Any) -> Begin:
    """A proxy misbehaves while the fault lasts.

    Args:
        way: which one.
        behaviour: name of the method of `TcpProxy` that begins it.
        arguments: of that method.
    """

    def begin(stack: SoakStack, _rng: random.Random) -> Heal:
        proxy = way(stack)
        before = proxy.counts.total()
        getattr(proxy, behaviour)(*arguments)

        def heal() -> None:
            proxy.behave()
            if proxy.counts.total() == before:
                raise Missed

        return heal

    return begin


def fault(
    name: str,
    lane: str,
    begin: Begin,
    meaning: str,
    lasts: tuple[float, float] = (0.0, 0.0),
    *,
    alone: bool = False,
    once: bool = False,
    local: bool = False,
) -> Fault:
    """A fault, written in one line."""
    return Fault(FaultShape(name, lane, *lasts, alone, once), begin, meaning, local)
