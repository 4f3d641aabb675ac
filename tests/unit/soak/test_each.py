"""A soak of many faults, split into one for each."""

from __future__ import annotations

from kbroker.soak import plan
from kbroker.soak.each import each
from kbroker.soak.faults import FAULTS
from kbroker.soak.soak import Wanted
from kbroker.soak.workload import KINDS

WANTED = Wanted(30, 7, list(FAULTS), 5.0)


def test_each_fault_and_each_kind_of_task_that_fails_is_tried_alone() -> None:
    runs = dict(each(WANTED))
    failing = {name for name, kind in KINDS.items() if kind.causes or not kind.starts}
    assert set(runs) == set(FAULTS) | {f"tasks that are {name}" for name in failing}
    for name in FAULTS:
        assert list(runs[name].faults) == [name]
        assert failing.isdisjoint(runs[name].kinds)
    for name in failing:
        alone = runs[f"tasks that are {name}"]
        assert (list(alone.faults), set(alone.kinds)) == ([], {"work", name})


def test_each_lasts_for_as_long_as_its_fault_needs() -> None:
    for seed in range(20):
        for name, alone in each(WANTED):
            if alone.faults:
                steps = plan.draw(seed, [FAULTS[name].shape], alone.duration)
                assert [step.fault for step in steps][:1] == [name]
