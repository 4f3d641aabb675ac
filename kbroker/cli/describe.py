"""`kbroker describe`: one task, why it waits or how it ended, and all that is known of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from kbroker.cli import options, preflight
from kbroker.cli.completion import complete_run, complete_task
from kbroker.cli.examples import examples
from kbroker.cli.pod_report import PodReport, pod_report
from kbroker.cli.selection import newest
from kbroker.cli.text import one_line
from kbroker.keys import RedisKeys
from kbroker.kube_config import KubeConfig
from kbroker.launch_detail import FURTHEST, Detail
from kbroker.launch_explanation import explain
from kbroker.redis_client import connect

NOTHING = 3  # exit code: no such task is recorded
_LABEL = 14


@examples(
    "kbroker describe extract",
    "kbroker describe etl.load --run nightly",
    "kbroker describe extract --json | jq -r .why",
)
def describe(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="A task's id, dag.task, or launch id.",
            autocompletion=complete_task,
        ),
    ],
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="Of this run.", metavar="RUN_ID", autocompletion=complete_run),
    ] = None,
    tail: Annotated[int, typer.Option(help="So many last lines of its log.", min=0)] = 10,
    json: options.Json = False,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
) -> None:
    """Say why a task waits or how it ended, then everything that is known of it.

    The newest launch of that name counts. Finished tasks are known for broker.record_ttl.
    What only Kubernetes knows is left out, and that is said, where it cannot be asked.

    Exit code: 0, 1 when Redis is away, 2 for a wrong command line, 3 when no such task is
    recorded.
    """
    given = options.configuration(config, settings, kubeconfig)
    preflight.require_redis(given)
    client = connect(given.broker.url, given.broker.socket_timeout)
    try:
        seen = newest(client, RedisKeys(given.broker.prefix), task, run_id)
    finally:
        client.close()
    if seen is None:
        typer.echo(f"kbroker: no task {one_line(task)!r} is recorded; see: kbroker ps", err=True)
        raise typer.Exit(NOTHING)
    report = _ask_kubernetes(given, seen, tail)
    if json:
        document = as_dict(seen, report)
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    for line in lines(seen, report):
        typer.echo(line)


def _ask_kubernetes(config: KubeConfig, seen: Detail, tail: int) -> PodReport:
    if not seen.pod:
        return PodReport("no pod of it was seen yet")
    if seen.cluster != config.kubernetes.cluster:
        return PodReport(
            f"it runs in cluster {seen.cluster!r}, this configuration is for "
            f"{config.kubernetes.cluster!r}: to ask Kubernetes, give "
            f"--set kubernetes.cluster={seen.cluster} and that cluster's --kubeconfig"
        )
    return pod_report(config, seen.namespace, seen.pod, tail)


def as_dict(seen: Detail, report: PodReport) -> dict[str, Any]:
    """The document of --json; times in ms by Redis' clock, those of Kubernetes as it gives them."""
    record, event, message = seen.record, seen.record.event, seen.message
    return {
        "why": explain(seen),
        "key": seen.launch.key.as_list(),
        "launch_id": seen.launch.launch_id,
        "deployment": seen.launch.deployment,
        "cluster": seen.cluster,
        "namespace": seen.namespace,
        "record": record.state,
        "state": None if event is None else event.state,
        "cause": None if event is None else event.cause,
        "exit_code": None if event is None else event.exit_code,
        "attempt": record.attempt,
        "owner": {"id": record.owner, "alive": seen.owner_alive, "seen": seen.owner_seen},
        "watcher": {
            "leads": seen.leads,
            "name": seen.watched.leader if seen.watched is not None else "",
        },
        "message": {
            "place": message.place,
            "queue": message.queue,
            "ahead": message.ahead,
            "length": message.length,
            "holder": message.holder,
            "due": message.due or None,
        },
        "times": {**seen.times, "create_before": record.create_before or None, "now": seen.now},
        "pod": {
            "name": seen.pod,
            "uid": record.uid,
            "phase": report.phase,
            "node": report.node,
            "created": report.created,
            "scheduled": report.scheduled,
            "started": report.started,
            "finished": report.finished,
            "events": [
                dict(zip(("at", "type", "reason", "message"), one, strict=True))
                for one in report.events
            ],
            "log": report.log,
            "problem": report.problem,
        },
    }


def lines(seen: Detail, report: PodReport) -> Iterator[str]:
    """The text, one line each; a terminal may fold them."""
    record, key = seen.record, seen.launch.key
    yield one_line(explain(seen))
    yield ""
    yield _field("Task", str(key))
    yield _field("Launch", seen.launch.launch_id)
    yield _field("Record", f"{record.state}{_forgotten(seen)}")
    yield _field("Attempt", str(record.attempt))
    yield _field("Executor", record.owner + ("" if seen.owner_alive else " (gone)"))
    leader = seen.watched.leader if seen.watched is not None else ""
    yield _field("Watcher", (leader or "unknown") if seen.leads else "none leads")
    yield _field("Message", _message(seen))
    yield "Times:"
    for name, at in _times(seen):
        yield f"  {name + ':':<{_LABEL - 2}}{_moment(at)}  {_age(seen.now - at)}"
    yield from _pod(seen, report)


def _pod(seen: Detail, report: PodReport) -> Iterator[str]:
    yield _field("Pod", f"{seen.namespace}/{seen.pod}" if seen.pod else "none")
    told = ("phase", "node", "created", "scheduled", "started", "finished")
    for name in told:
        value = getattr(report, name)
        if value:
            yield f"  {name.capitalize() + ':':<{_LABEL - 2}}{one_line(value)}"
    if report.problem:
        yield f"  ({one_line(report.problem)})"
    if report.events:
        yield "Events:"
        for at, kind, reason, message in report.events:
            yield "  " + one_line(f"{at} {kind} {reason}: {message}")
    if report.log:
        yield "Log:"
        for line in report.log:
            yield "  " + one_line(line)


def _message(seen: Detail) -> str:
    message = seen.message
    match message.place:
        case "queued":
            ahead = f"more than {FURTHEST}" if message.ahead >= FURTHEST else str(message.ahead + 1)
            return f"{message.queue}, position {ahead} of {message.length}"
        case "in hand":
            return (
                f"in hand of launcher {message.holder} for {message.held_for / 1000:.0f} s, "
                f"delivery {message.deliveries}"
            )
        case "parked":
            return f"parked until {_moment(message.due)}"
        case "dead":
            return "in the dead stream; see: kbroker dead list"
        case _:
            return "none"


def _forgotten(seen: Detail) -> str:
    return "" if seen.expires_in is None else f", forgotten in {seen.expires_in / 1000:.0f} s"


def _times(seen: Detail) -> list[tuple[str, int]]:
    named = {
        "Published": seen.times.get("published_at", 0),
        "Granted": seen.times.get("granted_at", 0),
        "Create until": seen.record.create_before,
        "Last event": seen.record.event_at,
        "Running": seen.times.get("started_at", 0),
        "Finished": seen.times.get("finished_at", 0),
        "Closed": seen.times.get("closed_at", 0),
    }
    return sorted(((name, at) for name, at in named.items() if at), key=lambda one: one[1])


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age(milliseconds: int) -> str:
    seconds = abs(milliseconds) / 1000
    text = f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{text} ago" if milliseconds >= 0 else f"in {text}"


def _field(name: str, value: str) -> str:
    return f"{name + ':':<{_LABEL}}{one_line(value)}"
