"""`kbroker config`: what is configured, and where each value came from."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import orjson
import typer
from rich.table import Table
from rich.text import Text

from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.cli.text import plain_console
from kbroker.errors import UsageError
from kbroker.kube_config import KubeConfig

_PIPE_WIDTH = 400

app = typer.Typer(
    help="What is configured, and where it came from.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _group() -> None:
    """What is configured, and where it came from."""


@app.command()
@examples(
    "kbroker config show",
    "kbroker config show broker --changed",
    "KBROKER__CORE__PARALLELISM=8 kbroker config show core.parallelism --json",
)
def show(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION[.KEY]]...", help="Only these.", show_default=False),
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not the default.")
    ] = False,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """Print each setting, its value, and its source.

    A source is a file, an environment variable, an argument, or the default; an argument
    wins over the environment, the environment over the file. Passwords in URLs are hidden.

    Exit code: 0, or 2 when the configuration is not valid.
    """
    given = options.configuration(config, settings)
    rows = [
        (name, shown(name, value), given.source(name))
        for name, value in given.values().items()
        if name in _wanted(given, names or []) and (not changed or given.source(name) != "default")
    ]
    if json:
        document = {name: {"value": value, "source": source} for name, value, source in rows}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SETTING", "VALUE", "SOURCE"):
        table.add_column(column, overflow="fold")
    for name, value, source in rows:
        table.add_row(*(Text(cell) for cell in (name, orjson.dumps(value).decode(), source)))
    plain_console(pipe_width=_PIPE_WIDTH).print(table)


def shown(name: str, value: Any) -> Any:
    """A value as it may be shown."""
    if name != "broker.url" or not value:
        return value
    parts = urlsplit(value)
    if parts.password is None:
        return value
    where = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{where}"))


def _wanted(config: KubeConfig, names: list[str]) -> set[str]:
    known = list(config.values())
    if not names:
        return set(known)
    wanted: set[str] = set()
    for name in names:
        found = {one for one in known if one == name or one.startswith(f"{name}.")}
        if not found:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"there is no setting {name!r}{hint}")
        wanted |= found
    return wanted
