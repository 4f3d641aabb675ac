"""Which run measures which figures, and carrying them out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from kbroker.bench.bench import Bench, Measured, Run
from kbroker.bench.report import Report
from kbroker.bench.runs import (
    airflow,
    backlog,
    end_to_end,
    in_flight,
    latency,
    launch,
    quiet,
    relist,
    scale,
)
from kbroker.errors import KbrokerError, UsageError

AIRFLOW = "airflow"
_MODULES = {
    "launch": launch,
    "end_to_end": end_to_end,
    "latency": latency,
    "quiet": quiet,
    "in_flight": in_flight,
    "scale": scale,
    "relist": relist,
    "backlog": backlog,
    AIRFLOW: airflow,
}
RUNS: Mapping[str, Run] = MappingProxyType({n: m.measure for n, m in _MODULES.items()})
FIGURES_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: module.FIGURES for name, module in _MODULES.items()}
)
# They need an API server that is slow on demand, or that plays anybody's pods.
LOCAL_ONLY = ("scale", AIRFLOW)


def chosen(words: Sequence[str], *, local: bool = True, beside: bool = False) -> list[str]:
    """The runs that names of figures and runs mean; without any, all that can be had.

    Args:
        words: the names.
        local: whether the cluster is a local one.
        beside: whether Airflow is measured too, whatever the names.

    Raises:
        UsageError: a name is not known, or needs what is not there.
    """
    names = list(words) or [n for n in RUNS if n != AIRFLOW and (local or n not in LOCAL_ONLY)]
    if beside:
        names.append(AIRFLOW)
    wanted = set()
    for word in names:
        run = next((name for name in RUNS if word == name or word in FIGURES_OF[name]), None)
        if run is None:
            raise UsageError(f"no figure or run {word!r}; see: kbroker bench --list")
        if run in LOCAL_ONLY and not local:
            raise UsageError(f"{word} needs a local cluster; leave out --kubeconfig")
        if run == AIRFLOW and not beside:
            raise UsageError(f"{word} needs an interpreter that has Airflow: --airflow-python PATH")
        wanted.add(run)
    return [name for name in RUNS if name in wanted]


def carry_out(bench: Bench, names: Sequence[str]) -> Report:
    """One run after another; one that fails does not keep the others from being measured."""
    began = time.monotonic()
    measured: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    for name in names:
        bench.say(f"{name}: measures {', '.join(FIGURES_OF[name]) or 'for comparison'}")
        started = time.monotonic()
        try:
            measured[name] = RUNS[name](bench)
        except (KbrokerError, ValueError) as error:
            failed[name] = str(error)
            bench.say(f"{name}: failed: {error}")
        else:
            bench.say(f"{name}: took {time.monotonic() - started:.0f} s")
    return Report(measured, failed, time.monotonic() - began)
