"""The plan of a soak: drawn from its seed alone, each lane in order, calm where it must be."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.soak import plan, workload
from kbroker.soak.faults import FAULTS
from kbroker.soak.workload import KINDS, Op

SHAPES = [fault.shape for fault in FAULTS.values()]


@given(seed=st.integers(), duration=st.floats(10, 600))
def test_the_same_seed_gives_the_same_plan(seed: int, duration: float) -> None:
    assert plan.draw(seed, SHAPES, duration) == plan.draw(seed, SHAPES, duration)


def test_another_seed_gives_another_plan() -> None:
    assert plan.draw(1, SHAPES, 60) != plan.draw(2, SHAPES, 60)


@given(seed=st.integers(), duration=st.floats(10, 600))
def test_faults_of_a_lane_follow_one_another(seed: int, duration: float) -> None:
    steps = plan.draw(seed, SHAPES, duration)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    for lane in {shape.lane for shape in SHAPES}:
        ours = [s for s in steps if FAULTS[s.fault].shape.lane == lane]
        together = [s for s in ours if not FAULTS[s.fault].shape.alone]
        for before, after in itertools.pairwise(together):
            assert before.until < after.at


@given(seed=st.integers(), duration=st.floats(10, 600))
def test_everything_is_healed_before_the_end(seed: int, duration: float) -> None:
    assert all(0 < step.at <= step.until < duration for step in plan.draw(seed, SHAPES, duration))


@given(seed=st.integers(), duration=st.floats(60, 600))
def test_a_fault_that_is_alone_meets_no_other_one(seed: int, duration: float) -> None:
    steps = plan.draw(seed, SHAPES, duration)
    alone = [step for step in steps if FAULTS[step.fault].shape.alone]
    for begin, end in plan.calm_times(alone):
        others = [s for s in steps if s.until > begin and s.at < end]
        assert all(FAULTS[step.fault].shape.alone for step in others)
    requests = workload.draw(seed, 200, duration, ("a",), plan.calm_times(alone))
    for begin, end in plan.calm_times(alone):
        assert not [request for request in requests if begin <= request.at < end]


@given(seed=st.integers(), duration=st.floats(10, 600))
def test_what_is_enough_once_comes_once(seed: int, duration: float) -> None:
    counts = Counter(step.fault for step in plan.draw(seed, SHAPES, duration))
    assert all(counts[shape.name] <= 1 for shape in SHAPES if shape.once)
    assert all(counts[shape.name] == 1 for shape in SHAPES if shape.once and duration > 400)


def test_every_fault_comes_about_equally_often() -> None:
    counts = Counter(step.fault for step in plan.draw(7, SHAPES, 3600))
    assert set(counts) == set(FAULTS)
    for lane in {shape.lane for shape in SHAPES}:
        ours = [counts[s.name] for s in SHAPES if s.lane == lane and not (s.alone or s.once)]
        assert max(ours) - min(ours) <= 1


def test_the_same_seed_gives_the_same_tasks() -> None:
    assert workload.draw(1, 100, 60, ("a", "b")) == workload.draw(1, 100, 60, ("a", "b"))
    assert workload.draw(1, 100, 60, ("a", "b")) != workload.draw(2, 100, 60, ("a", "b"))


@given(seed=st.integers())
def test_what_changes_a_task_comes_after_it(seed: int) -> None:
    seen: Counter[str] = Counter()
    for request in workload.draw(seed, 100, 60, ("a", "b"), [(10, 20), (19, 30)]):
        if request.op is Op.RUN:
            seen[request.task] += 1
            assert request.launch == f"{request.task}/{seen[request.task]}"
        else:
            assert seen[request.task] == 1
    assert len(seen) == 100


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.weight])
def test_every_kind_of_task_is_drawn(kind: workload.Kind) -> None:
    assert kind.name in {request.kind for request in workload.draw(1, 1000, 60, ("a",))}
