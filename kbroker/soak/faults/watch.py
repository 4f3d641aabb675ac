"""Watches that break."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kbroker.soak.faults.api import begin_rule
from kbroker.soak.faults.fault import Begin, Heal, Missed, fault, on_the_way
from kbroker.soak.stack import SoakStack

_LANE = "watch"
_CROWD = 5000
# Once it is reached again, a watcher has asked for its list after this many seconds.
_RELISTED_WITHIN = 1.5


def _watches(action: str) -> Begin:
    """Something happens to all open watches."""

    def begin(stack: SoakStack, _rng: random.Random) -> None:
        stack.admin.post("/_local/watches", {"action": action})

    return begin


def _way(behaviour: str, *arguments: Any) -> Begin:
    """The watchers' way to the API server behaves so while it lasts."""
    return on_the_way(lambda stack: stack.watcher_way, behaviour, *arguments)


def _compacted(stack: SoakStack, _rng: random.Random) -> Heal:
    """The watch cannot be resumed: what happened meanwhile shows in a list only."""
    stack.watcher_way.refuse()

    def heal() -> None:
        stack.admin.post("/_local/compact", {})
        stack.watcher_way.behave()

    return heal


def _relist_fails(stack: SoakStack, rng: random.Random) -> Heal:
    behave = begin_rule(stack, {"verb": "list", "resource": "pods"}, {"status": 500}, times=1)
    see_again = _compacted(stack, rng)

    def heal() -> None:
        see_again()
        time.sleep(_RELISTED_WITHIN)
        behave()

    return heal


def _crowd(stack: SoakStack, rng: random.Random) -> Heal:
    see_again = _compacted(stack, rng)
    pool = ThreadPoolExecutor(1)
    coming = pool.submit(stack.pods.create_crowd, _CROWD)

    def heal() -> None:
        came = coming.result()
        see_again()
        time.sleep(_RELISTED_WITHIN)
        pool.submit(stack.pods.remove_crowd)
        pool.shutdown(wait=False)
        if came < _CROWD:
            raise Missed

    return heal


FAULTS = [
    fault("watch_dropped", _LANE, _watches("drop"), "all watches are dropped", local=True),
    fault(
        "watch_silent", _LANE, _watches("silence"), "no byte comes any more, and no FIN", local=True
    ),
    fault(
        "watch_bookmarks_only",
        _LANE,
        _watches("mute"),
        "nothing but bookmarks comes",
        (2, 3),
        local=True,
    ),
    fault("watch_garbage", _LANE, _watches("garbage"), "a line that is no JSON", local=True),
    fault("watch_half_line", _LANE, _watches("half_line"), "half a line, then the end", local=True),
    fault("watch_410_event", _LANE, _watches("error410"), "an ERROR event: 410 Gone", local=True),
    fault("watch_500_event", _LANE, _watches("error500"), "an ERROR event: 500", local=True),
    fault(
        "watch_410_answer",
        _LANE,
        _compacted,
        "the history is compacted while no watch is open: 410 in the answer",
        (1, 3),
        local=True,
    ),
    fault(
        "watch_relist_fails",
        _LANE,
        _relist_fails,
        "the same, and the first list fails",
        (1, 3),
        local=True,
    ),
    fault(
        "watch_relist_crowd",
        _LANE,
        _crowd,
        f"the same, and {_CROWD} pods came meanwhile",
        (4, 8),
        once=True,
        local=True,
    ),
    fault("watch_refused", _LANE, _way("refuse"), "connections are refused", (1, 4)),
    fault("watch_cut", _LANE, _way("break_answers", 2), "connections are cut in an answer", (1, 3)),
    fault("watch_black_hole", _LANE, _way("black_hole"), "nothing comes back", (2, 6)),
]
