"""`airflow kbroker …`: the `kbroker` command with the scheduler's configuration."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from kbroker.airflow.options import SECTION, AirflowOptions
from kbroker.errors import KbrokerError

_EPILOG = """\
The arguments are those of the kbroker command, which finds Airflow's Redis and deployment by
itself here: airflow kbroker ps, airflow kbroker describe TASK, airflow kbroker logs TASK,
airflow kbroker queues --json. See airflow kbroker -- --help.
"""


def get_cli_commands() -> list[Any]:
    """The commands that Airflow's command line gets from kbroker."""
    from airflow.cli.cli_config import ActionCommand, Arg  # noqa: PLC0415 - Airflow's side only

    arguments = Arg(
        ("arguments",),
        help="what follows kbroker on its own command line",
        nargs=argparse.REMAINDER,
    )
    return [
        ActionCommand(
            name="kbroker",
            help="Look into kbroker, with the scheduler's configuration",
            description="Runs the kbroker command with the configuration of the scheduler.",
            epilog=_EPILOG,
            func=run,
            args=(arguments,),
        )
    ]


def run(arguments: Any) -> NoReturn:
    """Become the kbroker command."""
    from airflow.configuration import conf  # noqa: PLC0415 - Airflow's side only

    try:
        options = AirflowOptions.read(lambda name: conf.get(SECTION, name, fallback=None))
    except KbrokerError as error:
        print(f"kbroker: error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(error.exit_code) from None
    words = [word for word in arguments.arguments if word != "--"] or ["--help"]
    environment = {**os.environ, **options.config.as_env()}
    os.execve(sys.executable, [sys.executable, "-m", "kbroker", *words], environment)  # noqa: S606
