"""`kbroker dead`: messages that could not be processed; look, put back, forget."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import redis
import typer
from rich.table import Table
from rich.text import Text

from kbroker.cli import options, preflight
from kbroker.cli.examples import examples
from kbroker.cli.text import one_line, plain_console
from kbroker.dead_letters import REFUSED, DeadLetter, letter, letters, purge, replay
from kbroker.errors import UsageError
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.redis_client import availability, connect, run

SOME_NOT = 1  # exit code: some could not be put back
NOTHING = 3  # exit code: there is no such message
_PIPE_WIDTH = 1000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="As kbroker dead list shows it.", show_default=False),
]

app = typer.Typer(
    help="Messages that could not be processed.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
@examples("kbroker dead list", "kbroker dead replay --all")
def _group() -> None:
    """Messages that could not be processed: the newest 10,000 are kept."""


@app.command("list")
@examples("kbroker dead list", "kbroker dead list --json | jq -r '.[].id'")
def list_(
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """List the dead messages, the oldest first. No command is shown.

    Exit code: 0, 1 when Redis is away.
    """
    with _redis(config, settings) as (client, keys, _):
        found = letters(client, keys)
    if json:
        _json([_summary(one) for one in found])
        return
    if not found:
        typer.echo("no message is dead")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", "BURIED", "KIND", "ABOUT", "REASON"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for one in found:
        cells = (one.id, _moment(one.at), one.kind, one.about, one.reason)
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    plain_console(pipe_width=_PIPE_WIDTH).print(table)


@app.command()
@examples("kbroker dead show 1767225600000-0", "kbroker dead show 1767225600000-0 --show-command")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="As kbroker dead list shows it.")],
    private: Annotated[
        bool, typer.Option("--show-command", help="Show its command and configuration, too.")
    ] = False,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """Show one dead message. Its command and configuration are hidden.

    Exit code: 0, 1 when Redis is away, 3 when there is no such message.
    """
    with _redis(config, settings) as (client, keys, _):
        found = letter(client, keys, name)
    if found is None:
        raise _missing([name])
    content = found.content(private=private)
    if json:
        _json({**_summary(found), "message": content})
        return
    for title, value in (
        ("ID", found.id),
        ("Buried", _moment(found.at)),
        ("Queue", found.queue),
        ("Kind", found.kind),
        ("About", found.about),
        ("Reason", found.reason),
    ):
        typer.echo(f"{title + ':':<10}{one_line(value)}")
    typer.echo("Message:")
    values = content.items() if isinstance(content, dict) else [("", content)]
    for key, value in values:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        typer.echo(f"  {key + ': ' if key else ''}{one_line(text)}")


@app.command("replay")
@examples("kbroker dead replay 1767225600000-0", "kbroker dead replay --all --json")
def replay_(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All that can be.")] = False,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """Put dead messages back on their queues, where that can start nothing twice.

    Removals of pods and requests for Secrets can always be repeated. A launch cannot once
    its executor was told that the task failed, or its pod exists: run the task again
    instead. What cannot be put back stays.

    Exit code: 0 when all were put back, 1 when some were not, 2 for a wrong command line,
    3 when there is no such message.
    """
    _named(ids, everything)
    with _redis(config, settings) as (client, keys, given):
        found = _found(client, keys, ids, everything)
        outcomes = [_replayed(client, keys, given, one) for one in found]
    if json:
        rows = [
            {"id": one.id, "outcome": outcome, "why": REFUSED.get(outcome, "")}
            for one, outcome in zip(found, outcomes, strict=True)
        ]
        _json(rows)
    else:
        for one, outcome in zip(found, outcomes, strict=True):
            what = one_line(f"{one.id} {one.kind} {one.about}").rstrip()
            why = "put back" if outcome == "ok" else f"not put back: {REFUSED[outcome]}"
            typer.echo(f"{what}: {why}")
    if any(outcome != "ok" for outcome in outcomes):
        raise typer.Exit(SOME_NOT)


@app.command("purge")
@examples("kbroker dead purge 1767225600000-0", "kbroker dead purge --older-than 7d")
def purge_(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Such as 90s, 30m, 12h or 7d.", metavar="AGE")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """Forget dead messages for good. On a terminal you are asked before --all.

    Exit code: 0, 2 for a wrong command line, 3 when a message that was named is not there.
    """
    _named(ids, everything or older_than is not None)
    if everything and older_than is not None:
        raise UsageError("--all and --older-than exclude each other")
    age = None if older_than is None else _age(older_than)
    with _redis(config, settings) as (client, keys, _):
        found = _found(client, keys, ids, not ids)
        if age is not None:
            with availability():
                seconds, _micros = client.time()
            found = [one for one in found if one.at < (int(seconds) - age) * 1000]
        if everything and not yes and found and sys.stdin.isatty():
            typer.confirm(f"forget {len(found)} dead messages?", abort=True, err=True)
        count = purge(client, keys, [one.id for one in found])
    if json:
        _json({"purged": count})
    else:
        typer.echo(f"{count} forgotten")


def _replayed(client: redis.Redis, keys: RedisKeys, config: KubeConfig, one: DeadLetter) -> str:
    call = replay(keys, one, config.broker.default_priority)
    return "garbage" if call is None else str(run(client, [call])[0])


def _found(
    client: redis.Redis, keys: RedisKeys, ids: Sequence[str] | None, everything: bool
) -> list[DeadLetter]:
    if everything:
        return letters(client, keys)
    named = {name: letter(client, keys, name) for name in ids or ()}
    missing = [name for name, one in named.items() if one is None]
    if missing:
        raise _missing(missing)
    return [one for one in named.values() if one is not None]


def _missing(names: Sequence[str]) -> typer.Exit:
    for name in names:
        typer.echo(f"kbroker: no dead message {one_line(name)!r}; see: kbroker dead list", err=True)
    return typer.Exit(NOTHING)


def _named(ids: Sequence[str] | None, otherwise: bool) -> None:
    if bool(ids) == otherwise:
        raise UsageError("name messages by their ids, or choose them by an option; not both")


def _age(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise UsageError(f"--older-than {text!r}: must be such as 90s, 30m, 12h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def _summary(one: DeadLetter) -> dict[str, Any]:
    return {
        "id": one.id,
        "buried_at": one.at,
        "queue": one.queue,
        "kind": one.kind,
        "about": one.about,
        "reason": one.reason,
    }


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


@contextmanager
def _redis(
    config: Any, settings: list[str] | None
) -> Iterator[tuple[redis.Redis, RedisKeys, KubeConfig]]:
    given = options.configuration(config, settings)
    preflight.require_redis(given)
    client = connect(given.broker.url, given.broker.socket_timeout)
    try:
        yield client, RedisKeys(given.broker.prefix), given
    finally:
        client.close()
