"""The audit of a soak finds each way of breaking a promise, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kbroker.soak.audit import Evidence, judge
from kbroker.soak.database import Ending
from kbroker.soak.ledger import Line, parse
from kbroker.soak.workload import Op, Request

KEPT = {"lost": 0, "duplicated": 0, "stuck": 0, "wrong_state": 0}


def run(kind: str = "work", number: int = 1) -> Request:
    return Request(0.0, Op.RUN, "a", "t", f"t/{number}", kind)


REVOKE = Request(1.0, Op.REVOKE, "a", "t")


def start(uid: str = "u1", number: int = 1) -> Line:
    return Line(False, None, "t", f"t/{number}", 1, uid, 1, 0.0)


def end(uid: str = "u1", code: int = 0, number: int = 1) -> Line:
    return Line(True, code, "t", f"t/{number}", 1, uid, 1, 1.0)


def told(cause: str = "", uid: str = "u1", life: int = 1, number: int = 1) -> Ending:
    return Ending(life, f"t/{number}", "failed" if cause else "success", cause, None, 1, uid, "")


@pytest.mark.parametrize(
    ("wanted", "ran", "endings", "more", "found"),
    [
        ([run()], [start(), end()], [told()], {}, {}),
        ([run("failing")], [start(), end(code=3)], [told("error")], {}, {}),
        ([run("imageless")], [], [told("image_pull", uid="")], {}, {}),
        ([run("restarted")], [start(), start(), end()], [told()], {}, {}),
        # Told in two lives: at least once, and the same.
        ([run()], [start(), end()], [told(), told(life=2)], {}, {}),
        # What was done to the pod from outside may fail it.
        ([run()], [start()], [told("evicted")], {"hits": {"u1": "evicted"}}, {}),
        # A revoked task may end in any way, or in none.
        ([run(), REVOKE], [], [], {}, {}),
        ([run(), REVOKE], [start()], [], {}, {}),
        # Both launches of a task run; only the newer one speaks.
        (
            [run(), run(number=2)],
            [start(), end(), start("u2", 2), end("u2", number=2)],
            [told(uid="u2", number=2)],
            {},
            {},
        ),
        ([run()], [start(), end()], [], {}, {"lost": 1}),
        ([run()], [], [], {}, {"lost": 1}),
        (
            [run(), run(number=2)],
            [start("u2", 2), end("u2", number=2)],
            [told(uid="u2", number=2)],
            {},
            {"lost": 1},
        ),
        # A scheduler that died with the older launch in its memory forgets it.
        (
            [run(), run(number=2)],
            [start("u2", 2), end("u2", number=2)],
            [told(uid="u2", number=2)],
            {"crashes": {"a": [5.0]}},
            {},
        ),
        # But not one that died long afterwards.
        (
            [run(), run(number=2)],
            [start("u2", 2), end("u2", number=2)],
            [told(uid="u2", number=2)],
            {"crashes": {"a": [80.0]}},
            {"lost": 1},
        ),
        ([run()], [start(), end(), start("u2"), end("u2")], [told()], {}, {"duplicated": 1}),
        ([run()], [start(), start(), end()], [told()], {}, {"duplicated": 1}),
        (
            [run("restarted")],
            [start(), start("u2"), end("u2")],
            [told(uid="u2")],
            {},
            {"duplicated": 1},
        ),
        ([run(), REVOKE], [start(), start("u2")], [], {}, {"duplicated": 1}),
        ([run()], [start(), end()], [told()], {"left": ["pod x"]}, {"stuck": 1}),
        # It says success, and never ended so.
        ([run()], [start()], [told()], {}, {"wrong_state": 1}),
        ([run()], [start(), end("u2")], [told()], {}, {"wrong_state": 1}),
        # It says failed, and ended well, or for a reason that cannot be.
        ([run()], [start(), end()], [told("vanished")], {}, {"wrong_state": 1}),
        ([run()], [start()], [told("vanished")], {}, {"wrong_state": 1}),
        ([run("failing")], [start(), end(code=3)], [told("oom_killed")], {}, {"wrong_state": 1}),
        # Told twice in one life; told differently in two.
        ([run()], [start(), end()], [told(), told()], {}, {"wrong_state": 1}),
        (
            [run()],
            [start(), end()],
            [told(), told("error", life=2)],
            {"hits": {"u1": "deleted"}},
            {"wrong_state": 1},
        ),
        # Nobody wanted it.
        ([run()], [start(), end(), start("u9", 9)], [told()], {}, {"wrong_state": 1}),
    ],
)
def test_verdict(
    wanted: Sequence[Request],
    ran: Sequence[Line],
    endings: Sequence[Ending],
    more: dict[str, Any],
    found: dict[str, int],
) -> None:
    verdict = judge(Evidence(wanted, ran, {"a": endings}, **more))
    counted = {name: len(getattr(verdict, name)) for name in KEPT}
    assert counted == {**KEPT, **found}, verdict
    assert verdict.kept == (not found)


def test_a_line_of_the_ledger() -> None:
    line = "end 3 failing-26 failing-26/1 2 5272c2a9 12963 1795450251.075291395"
    assert list(parse([line])) == [
        Line(True, 3, "failing-26", "failing-26/1", 2, "5272c2a9", 12963, 1795450251.075291395)
    ]
    with pytest.raises(ValueError, match="not enough values"):
        list(parse(["start -"]))
