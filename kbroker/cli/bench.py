"""`kbroker bench`: what kbroker costs, against what the API server itself can do."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from kbroker.cli import options
from kbroker.cli.examples import examples

if TYPE_CHECKING:
    from kbroker.bench.report import Report


@examples(
    "kbroker bench",
    "kbroker bench --only launch_vs_limit,launcher_cpu_ms --verbose",
    "kbroker bench --quick --json",
    "kbroker bench --kubeconfig ~/.kube/config --only launch",
    "kbroker bench --airflow-python ~/airflow/bin/python",
    "kbroker bench --list",
)
def bench(
    only: Annotated[
        str | None,
        typer.Option(help="Figures or runs to measure, by commas.", metavar="NAME,…"),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Measure in the namespace of this file's context, not in a local cluster.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    server_pid: Annotated[
        int | None,
        typer.Option(help="Process id of that cluster's API server, if it is here.", min=1),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(help="Where bench.json and bench.svg go.", metavar="DIR", file_okay=False),
    ] = Path(),
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Logs and state; kept.", metavar="DIR", file_okay=False),
    ] = None,
    airflow_python: Annotated[
        str | None,
        typer.Option(
            help="Measure Airflow's KubernetesExecutor too, with this interpreter.", metavar="PATH"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="So little that figures mean nothing: does it run?")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 when a bar is not reached.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print the process ids, for profilers.")
    ] = False,
    list_figures: Annotated[
        bool, typer.Option("--list", help="Print every figure, its bar and its run.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Measure kbroker against a minimal client of the same API server, in about four minutes.

    Contenders take turns on the same machine, so that ratios mean something where times do not.
    What is printed last are lines of name=value; bench.json has every repetition, bench.svg the
    launch rate over time, the distribution of latency, and the cost against the size.

    Exit code: 0 when everything was measured, 1 when something could not be, or does not reach
    its bar with --check, 2 for a wrong command line.
    """
    from kbroker.bench.bench import QUICK, Bench, Sizes  # noqa: PLC0415 - needs extras
    from kbroker.bench.registry import carry_out, chosen  # noqa: PLC0415
    from kbroker.bench.runs.airflow import require_airflow  # noqa: PLC0415
    from kbroker.bench.site import Sites  # noqa: PLC0415

    if list_figures:
        _list()
        return
    words = only.split(",") if only else []
    names = chosen(words, local=kubeconfig is None, beside=airflow_python is not None)
    if airflow_python is not None:
        require_airflow(airflow_python)
    where = folder or Path(tempfile.mkdtemp(prefix="kbroker-bench-"))
    sites = Sites(where, kubeconfig, server_pid)
    sizes = QUICK if quick else Sizes()
    pids = _say if verbose else _ignore
    report = carry_out(Bench(sites, where, sizes, _say, pids, airflow_python or ""), names)
    _write(report, output)
    if json:
        document = orjson.dumps(report.document(), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(document + b"\n")
    else:
        typer.echo("\n".join(report.lines()))
    raise typer.Exit(1 if report.failed or (check and not report.reached) else 0)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _ignore(_text: str) -> None:
    pass


def _list() -> None:
    from kbroker.bench.figures import FIGURES  # noqa: PLC0415
    from kbroker.bench.registry import FIGURES_OF  # noqa: PLC0415 - needs extras

    for run, names in FIGURES_OF.items():
        for name in names:
            figure = FIGURES[name]
            typer.echo(f"{run:12}{name:26}{figure.wanted:12}{figure.meaning}")


def _write(report: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    document = orjson.dumps(report.document(), option=orjson.OPT_INDENT_2)
    (output / "bench.json").write_bytes(document + b"\n")
    (output / "bench.svg").write_text(report.picture())
