"""Every fault for itself: a soak of its own for each, and for each kind of task that fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kbroker.soak.faults import FAULTS
from kbroker.soak.plan import FIRST_WITHIN, LAST_UNTIL
from kbroker.soak.soak import Wanted
from kbroker.soak.workload import KINDS

# So many seconds more for what wants to be alone, as nothing is submitted around it.
_CALM = 15.0
# Tasks that end well by themselves, so that whatever else happens is the fault's doing.
_PLAIN = tuple(name for name, kind in KINDS.items() if kind.starts and not kind.causes)


def each(wanted: Wanted) -> Iterator[tuple[str, Wanted]]:
    """Split a soak of many faults and kinds of tasks: (what is tried, the soak that tries it)."""
    for name in wanted.faults:
        shape = FAULTS[name].shape
        needed = (shape.longest + FIRST_WITHIN) / LAST_UNTIL + (_CALM if shape.alone else 1.0)
        alone = replace(wanted, faults=[name], kinds=_PLAIN, duration=max(wanted.duration, needed))
        yield name, alone
    for name in wanted.kinds:
        if name not in _PLAIN:
            yield f"tasks that are {name}", replace(wanted, faults=[], kinds=("work", name))
