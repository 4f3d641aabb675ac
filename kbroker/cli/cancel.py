"""`kbroker cancel`: end tasks that are wanted, whoever wants them."""

from __future__ import annotations

import getpass
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import redis
import typer

from kbroker.cli import options, preflight
from kbroker.cli.completion import complete_run, complete_task
from kbroker.cli.examples import examples
from kbroker.cli.selection import select
from kbroker.cli.text import one_line
from kbroker.errors import UsageError
from kbroker.inspection import LaunchView, launches
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_record import LaunchRecords
from kbroker.launch_reply import Cancelled
from kbroker.redis_client import availability, connect, run

SOME_NOT = 1  # exit code: some could not be cancelled
NOTHING = 3  # exit code: nothing is wanted that was meant
_LOOK_AGAIN = 0.1
_BATCH = 200
_WORDS = {
    "ok": "cancelled",
    "unknown": "not known any more",
    "final": "has ended by itself",
    "withdrawn": "was cancelled already",
}


@dataclass(slots=True)
class _Done:
    """One launch and what came of it; `gone` is None where nobody waited for its pod."""

    view: LaunchView
    reply: Cancelled
    gone: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        view = self.view
        return {
            "key": view.key.as_list(),
            "launch_id": view.launch_id,
            "outcome": "cancelled" if self.reply.outcome == "ok" else self.reply.outcome,
            "pod": self.reply.pod,
            "namespace": view.namespace,
            "gone": self.gone,
        }


@examples(
    "kbroker cancel extract",
    "kbroker cancel --run nightly --task 'extract-*' --yes",
    "kbroker cancel --all --dry-run",
    "kbroker cancel etl.load --wait 60 --json",
)
def cancel(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK]...",
            help="Task ids, dag.task, launch ids, or patterns such as 'extract-*'.",
            show_default=False,
            autocompletion=complete_task,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="The same, as an option.",
            metavar="TASK",
            autocompletion=complete_task,
        ),
    ] = None,
    run_id: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Only tasks of this run; id or pattern.",
            metavar="RUN_ID",
            autocompletion=complete_run,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is wanted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    wait: Annotated[
        float,
        typer.Option(help="Wait this long until their pods are gone.", metavar="SECONDS", min=0),
    ] = 0.0,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
) -> None:
    """End tasks: nothing more is created for them, and their pods are removed.

    The run or scheduler that wants them is told that they failed, cause "cancelled", and
    does not launch them again. Where it is gone, they are cleaned up all the same. A task
    that has ended by itself keeps its end. On a terminal you are asked before several tasks
    are cancelled by a pattern, --run or --all.

    Exit code: 0 when all were cancelled, 1 when some were not or, with --wait, a pod is not
    gone, 2 for a wrong command line, 3 when nothing wanted is called so.
    """
    names = [*(tasks or ()), *(task or ())]
    if not (names or run_id or everything):
        raise UsageError("name tasks, a run with --run, or --all")
    if names and everything:
        raise UsageError("--all and names of tasks exclude each other")
    given = options.configuration(config, settings)
    preflight.require_redis(given)
    client = connect(given.broker.url, given.broker.socket_timeout)
    try:
        selection = select(
            launches(client, RedisKeys(given.broker.prefix), limit=0),
            names,
            run_id or (),
            everything=everything,
        )
        _say_missing(selection.missing)
        if not selection.found:
            _say("nothing that is wanted is called so; kbroker ps lists what is")
            _print(json, [])
            raise typer.Exit(NOTHING)
        if dry_run:
            _dry_run(json, selection.found)
            raise typer.Exit(SOME_NOT if selection.missing else 0)
        if len(selection.found) > 1 and selection.by_pattern and not yes:
            _ask(selection.found)
        done = _cancel(client, given, selection.found)
        _wait(client, given, done, wait)
        _print(json, done)
    finally:
        client.close()
    # What ended by itself in the meantime was not meant by a pattern.
    refused = any(d.reply.outcome != "ok" for d in done) and not selection.by_pattern
    if selection.missing or refused or any(d.gone is False for d in done):
        raise typer.Exit(SOME_NOT)


def _cancel(client: redis.Redis, config: KubeConfig, found: Sequence[LaunchView]) -> list[_Done]:
    records = LaunchRecords(
        RedisKeys(config.broker.prefix), config.broker.record_ttl, config.kubernetes.create_window
    )
    why = f"cancelled by {_user()}@{socket.gethostname()}"
    done = []
    for first in range(0, len(found), _BATCH):
        batch = found[first : first + _BATCH]
        replies = run(client, [records.cancel(view.digest, why) for view in batch])
        done += [_Done(view, reply) for view, reply in zip(batch, replies, strict=True)]
    return done


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's user need not have a name


def _wait(client: redis.Redis, config: KubeConfig, done: list[_Done], seconds: float) -> None:
    """Note of each whether its pod is gone; looks until all are, or the time is over."""
    if not seconds:
        return
    deadline = time.monotonic() + seconds
    keys = RedisKeys(config.broker.prefix)
    left = [one for one in done if one.reply.outcome == "ok"]
    for one in left:
        one.gone = False
    while left:
        with availability():
            for one in left:
                one.gone = _gone(client, keys, one)
        left = [one for one in left if not one.gone]
        if time.monotonic() >= deadline:
            return
        if left:
            time.sleep(_LOOK_AGAIN)


def _gone(client: redis.Redis, keys: RedisKeys, one: _Done) -> bool:
    """Whether the leading watcher's picture shows no pod of it, and none can follow."""
    place = (one.view.cluster, one.view.namespace)
    seconds, micros = client.time()
    now = int(seconds) * 1000 + int(micros) // 1000
    asked: Any = client.hkeys(keys.task(one.view.digest))
    # Every pod whose removal was asked for is named in the record by its uid.
    removed = {name.partition(b":")[2] for name in asked if name.startswith(b"removal:")}
    if one.reply.create_before > now and not removed:
        return False
    progress: Any = client.hmget(keys.watch(*place), "checkpoint")
    if removed and int(progress[0] or 0) < one.reply.version:
        return False
    if one.reply.pod:
        seen: Any = [client.hget(keys.pods(*place), one.reply.pod)]
    else:
        seen = client.hvals(keys.pods(*place)) if removed else []
    return not any(pod and orjson.loads(pod).get("uid", "").encode() in removed for pod in seen)


def _ask(found: Sequence[LaunchView]) -> None:
    if not sys.stdin.isatty():
        return
    _say(f"about to cancel {len(found)} tasks:")
    for view in found[:10]:
        _say(f"  {_name(view)} ({view.state})")
    if len(found) > 10:
        _say(f"  and {len(found) - 10} more")
    typer.confirm("cancel them?", abort=True, err=True)


def _dry_run(json: bool, found: Sequence[LaunchView]) -> None:
    if json:
        rows = [{**_Done(v, Cancelled("ok")).as_dict(), "outcome": "would cancel"} for v in found]
        _json([{**row, "pod": v.pod} for row, v in zip(rows, found, strict=True)])
        return
    for view in found:
        typer.echo(f"{_name(view)}: would be cancelled ({view.state})")


def _print(json: bool, done: Sequence[_Done]) -> None:
    if json:
        _json([one.as_dict() for one in done])
        return
    for one in done:
        text = f"{_name(one.view)}: {_WORDS[one.reply.outcome]}"
        if one.gone is not None:
            text += ", no pod is left" if one.gone else ", its pod is not known to be gone yet"
        typer.echo(text)


def _json(rows: list[dict[str, Any]]) -> None:
    sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def _say_missing(names: Sequence[str]) -> None:
    for name in names:
        _say(f"nothing that is wanted is called {name!r}")


def _say(text: str) -> None:
    typer.echo(one_line(text) if not text.startswith(" ") else "  " + one_line(text), err=True)


def _name(view: LaunchView) -> str:
    return one_line(str(view.key))
