"""`kbroker local`: a Redis and a cluster on this machine, for development."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from kbroker.cli import options
from kbroker.errors import KbrokerError
from kbroker.local import supervisor
from kbroker.local.supervisor import LocalState

app = typer.Typer(
    help="A Redis and a Kubernetes cluster on this machine, for development.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--dir", help="State, kubeconfig and logs.", metavar="DIR")]
_DEFAULT = Path(".kbroker/local")


@app.command()
def up(folder: Folder = _DEFAULT, json: options.Json = False) -> None:
    """Start them in the background and print how to use them.

    The cluster runs containers as processes of this user: nothing is isolated.

    Examples:
      eval "$(kbroker local up)"

      kubectl get pods
    """
    _show(supervisor.start(folder), json)


@app.command()
def down(folder: Folder = _DEFAULT) -> None:
    """Stop what `up` started, and every pod with it.

    Examples:
      kbroker local down
    """
    if not supervisor.stop(folder):
        raise KbrokerError(f"nothing is up in {folder}")
    typer.echo("stopped", err=True)


@app.command()
def status(folder: Folder = _DEFAULT, json: options.Json = False) -> None:
    """Say where they are; exit code 1 when they are not up.

    Examples:
      kbroker local status --json
    """
    state = supervisor.read_state(folder)
    if state is None:
        raise KbrokerError(f"nothing is up in {folder}; start it: kbroker local up")
    _show(state, json)


def _show(state: LocalState, json: bool) -> None:
    if json:
        document = {
            "pid": state.pid,
            "redis_url": state.redis_url,
            "kubeconfig": state.kubeconfig,
        }
        sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
        return
    typer.echo(f"export KBROKER__BROKER__URL={shlex.quote(state.redis_url)}")
    typer.echo(f"export KUBECONFIG={shlex.quote(state.kubeconfig)}")
