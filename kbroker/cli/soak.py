"""`kbroker soak`: real tasks, real processes, injected faults, and an audit."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.errors import UsageError

if TYPE_CHECKING:
    from kbroker.soak.soak import Report

_NONE, _ALL = "none", "all"


@examples(
    "kbroker soak --duration 60 --seed 7",
    "kbroker soak --faults redis_flushed,leader_killed --tasks 200",
    "kbroker soak --faults redis --tasks 100 --duration 30",
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
    from kbroker.soak.faults import FAULTS  # noqa: PLC0415 - needs extras, and half a second
    from kbroker.soak.soak import Soak, Wanted  # noqa: PLC0415

    if list_faults:
        for fault in FAULTS.values():
            typer.echo(f"{fault.shape.lane:11}{fault.shape.name:32}{fault.meaning}")
        return
    wanted = Wanted(tasks, seed, chosen(faults), duration, policy=policy)
    where = folder or Path(tempfile.mkdtemp(prefix="kbroker-soak-"))
    report = Soak(wanted, where, lambda text: typer.echo(text, err=True)).run()
    _print(report, json=json)
    raise typer.Exit(0 if report.verdict.kept else 1)


def chosen(text: str) -> list[str]:
    """The faults that a list of names and lanes means.

    Raises:
        UsageError: it names none that is known.
    """
    from kbroker.soak.faults import FAULTS  # noqa: PLC0415 - needs extras

    if text == _NONE:
        return []
    if text == _ALL:
        return list(FAULTS)
    names: list[str] = []
    for word in text.split(","):
        found = [name for name, one in FAULTS.items() if word in (name, one.shape.lane)]
        if not found:
            raise UsageError(f"no fault or lane {word!r}; see: kbroker soak --list-faults")
        names += [name for name in found if name not in names]
    return names


def _print(report: Report, *, json: bool) -> None:
    if json:
        document = {**asdict(report), "folder": str(report.folder)}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        return
    for name, count in sorted(report.faults.items()):
        typer.echo(f"{count:5} {name}")
    typer.echo(f"{report.impossible:5} that could not begin, or be healed, because of another one")
    verdict = report.verdict
    for what in ("lost", "duplicated", "stuck", "wrong_state"):
        for line in getattr(verdict, what):
            typer.echo(f"{what}: {line}")
    for when, memory in report.memory.items():
        held = " ".join(f"{name}={kb // 1024}" for name, kb in memory.items())
        typer.echo(f"memory in MB at the {when}: {held}")
    typer.echo(f"slowest heartbeat: {report.slowest_heartbeat * 1000:.0f} ms")
    typer.echo(f"writes of watchers without the lease that were refused: {report.rejected}")
    typer.echo(f"logs: {report.folder}")
    typer.echo(report.last_line)
