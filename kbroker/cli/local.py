"""`kbroker local`: a Redis and a cluster on this machine, for development."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.errors import KbrokerError
from kbroker.local import supervisor
from kbroker.local.supervisor import LocalState

app = typer.Typer(
    help="A Redis and a Kubernetes cluster on this machine, for development.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Option("--dir", help="State, kubeconfig and logs.", metavar="DIR")]
_DEFAULT = Path(".kbroker/local")


@app.command()
@examples('eval "$(kbroker local up)" && kubectl get pods', "kbroker local up --foreground")
def up(
    folder: Folder = _DEFAULT,
    foreground: Annotated[
        bool, typer.Option("--foreground/--detach", help="Stay until Ctrl-C, or go to the back.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Start them and print how to use them: lines for a shell to evaluate.

    The cluster runs containers as processes of this user: nothing is isolated.

    Exit code: 0, or 1 when they do not come up.
    """
    if foreground:
        supervisor.serve(folder, lambda state: _show(state, json))
    else:
        _show(supervisor.start(folder), json)


@app.command()
@examples("kbroker local down")
def down(folder: Folder = _DEFAULT) -> None:
    """Stop what `up` started, and every pod with it.

    Exit code: 0, or 1 when nothing is up.
    """
    if not supervisor.stop(folder):
        raise KbrokerError(f"nothing is up in {folder}")
    typer.echo("stopped", err=True)


@app.command()
@examples("kbroker local status --json")
def status(folder: Folder = _DEFAULT, json: options.Json = False) -> None:
    """Say where they are; exit code 1 when they are not up."""
    state = supervisor.read_state(folder)
    if state is None:
        raise KbrokerError(f"nothing is up in {folder}; start it: kbroker local up")
    _show(state, json)


def _show(state: LocalState, json: bool) -> None:
    if json:
        sys.stdout.buffer.write(orjson.dumps(asdict(state)) + b"\n")
        sys.stdout.flush()
        return
    typer.echo(f"export KBROKER__BROKER__URL={shlex.quote(state.redis_url)}")
    typer.echo(f"export KUBECONFIG={shlex.quote(state.kubeconfig)}")
