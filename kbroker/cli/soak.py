"""`kbroker soak`: real tasks, real processes, injected faults, and an audit."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.errors import UsageError

if TYPE_CHECKING:
    from kbroker.soak.soak import Report, Wanted

_NONE, _ALL = "none", "all"


@examples(
    "kbroker soak --duration 60 --seed 7",
    "kbroker soak --faults redis_flushed,leader_killed --tasks 200",
    "kbroker soak --faults redis --tasks 100 --duration 30",
    "kbroker soak --each --tasks 30 --duration 10",
    "kbroker soak --kubeconfig ~/.kube/config --faults api,launchers",
    "kbroker soak --list-faults",
)
def soak(
    tasks: Annotated[int, typer.Option(help="Tasks, spread over the duration.", min=1)] = 1000,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same tasks and the same plan of faults.")
    ] = 1,
    faults: Annotated[
        str,
        typer.Option(
            help="Names or lanes of faults, by commas; all, or none.", metavar="NAME,LANE,…"
        ),
    ] = _ALL,
    duration: Annotated[
        float, typer.Option(help="How long faults happen.", metavar="SECONDS", min=1)
    ] = 300.0,
    kinds: Annotated[
        str,
        typer.Option(help="Kinds of tasks, by commas; or all.", metavar="KIND,…"),
    ] = _ALL,
    each: Annotated[
        bool,
        typer.Option("--each", help="A soak for each fault, and each failing kind of task, alone."),
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Run in the namespace of this file's context, not in a local cluster.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Logs and state; kept.", metavar="DIR", file_okay=False),
    ] = None,
    policy: Annotated[
        bool, typer.Option(help="Let the cluster refuse creates that come too late.")
    ] = True,
    list_faults: Annotated[
        bool, typer.Option("--list-faults", help="Print every fault and what it does.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Break kbroker in every way on this machine, and count what was lost or run twice.

    Tasks of many kinds run on real processes of kbroker, an embedded Redis and a local
    cluster, while faults are injected. Each start of a container is written down by the
    container itself; at the end that is compared with what the API server, Redis and the
    schedulers say.

    Exit code: 0 when nothing was lost, duplicated, stuck or reported wrongly, 1 otherwise,
    2 for a wrong command line.
    """
    from kbroker.soak.soak import Soak, Wanted  # noqa: PLC0415 - needs extras, and half a second

    if list_faults:
        _list()
        return
    wanted = Wanted(
        tasks,
        seed,
        chosen(faults, local=kubeconfig is None),
        duration,
        chosen_kinds(kinds),
        policy=policy,
        kubeconfig=kubeconfig,
    )
    where = folder or Path(tempfile.mkdtemp(prefix="kbroker-soak-"))
    if each:
        raise typer.Exit(_each(wanted, where, json=json))
    report = Soak(wanted, where, _say).run()
    _print(report, json=json)
    raise typer.Exit(0 if report.verdict.kept else 1)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _list() -> None:
    from kbroker.soak.faults import FAULTS  # noqa: PLC0415 - needs extras

    for fault in FAULTS.values():
        where = " (local cluster only)" if fault.local else ""
        typer.echo(f"{fault.shape.lane:11}{fault.shape.name:32}{fault.meaning}{where}")


def _each(wanted: Wanted, where: Path, *, json: bool) -> int:
    """One soak after another; the exit code."""
    from kbroker.soak.each import each  # noqa: PLC0415 - needs extras
    from kbroker.soak.soak import Soak, together  # noqa: PLC0415

    reports: list[Report] = []
    for what, alone in each(wanted):
        report = Soak(alone, where / what.replace(" ", "-"), _say).run()
        reports.append(report)
        if json:
            sys.stdout.buffer.write(orjson.dumps({"what": what, **_document(report)}) + b"\n")
            sys.stdout.buffer.flush()
            continue
        if not report.verdict.kept:
            _print_broken(report)
        typer.echo(f"{what}: {report.last_line}")
    if reports and not json:
        typer.echo(together(reports))
    return 0 if all(report.verdict.kept for report in reports) else 1


def chosen(text: str, *, local: bool = True) -> list[str]:
    """The faults that a list of names and lanes means.

    Args:
        text: the list.
        local: whether the cluster is a local one; others do not misbehave on demand.

    Raises:
        UsageError: it names none that is known, or one that needs a local cluster.
    """
    from kbroker.soak.faults import FAULTS  # noqa: PLC0415 - needs extras

    possible = [name for name, one in FAULTS.items() if local or not one.local]
    if text == _NONE:
        return []
    if text == _ALL:
        return possible
    names: list[str] = []
    for word in text.split(","):
        if word in FAULTS and word not in possible:
            raise UsageError(f"fault {word} needs a local cluster; leave out --kubeconfig")
        found = [name for name in possible if word in (name, FAULTS[name].shape.lane)]
        if not found:
            raise UsageError(f"no fault or lane {word!r}; see: kbroker soak --list-faults")
        names += [name for name in found if name not in names]
    return names


def chosen_kinds(text: str) -> list[str]:
    """The kinds of tasks that a list of names means.

    Raises:
        UsageError: it names one that is not known.
    """
    from kbroker.soak.workload import KINDS  # noqa: PLC0415 - needs extras

    names = list(KINDS) if text == _ALL else text.split(",")
    for name in names:
        if name not in KINDS:
            raise UsageError(f"no kind of task {name!r}; there are: {', '.join(KINDS)}")
    return names


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "folder": str(report.folder)}


def _print(report: Report, *, json: bool) -> None:
    if json:
        document = orjson.dumps(_document(report), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(document + b"\n")
        return
    for name, count in sorted(report.faults.items()):
        typer.echo(f"{count:5} {name}")
    typer.echo(f"{report.missed:5} that met nothing")
    typer.echo(f"{report.impossible:5} that could not begin, or be healed, because of another one")
    counted = ", ".join(f"{count} {what}" for what, count in sorted(report.tasks.items()))
    typer.echo(f"launches: {counted}")
    _print_broken(report)
    for when, memory in report.memory.items():
        held = " ".join(f"{name}={kb // 1024}" for name, kb in memory.items())
        typer.echo(f"memory in MB at the {when}: {held}")
    typer.echo(f"slowest heartbeat: {report.slowest_heartbeat * 1000:.0f} ms")
    typer.echo(f"writes of watchers without the lease that were refused: {report.rejected}")
    typer.echo(f"logs: {report.folder}")
    typer.echo(report.last_line)


def _print_broken(report: Report) -> None:
    for what in ("lost", "duplicated", "stuck", "wrong_state"):
        for line in getattr(report.verdict, what):
            typer.echo(f"{what}: {line}")
