"""`kbroker airflow`: what an installation of Airflow becomes."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from kbroker.airflow.migration.airflow_cfg import mutation_hook, read_airflow
from kbroker.airflow.migration.new_files import airflow_sections, environment, kbroker_toml
from kbroker.airflow.migration.plan import Finding, Plan, plan
from kbroker.cli import options
from kbroker.cli.examples import examples
from kbroker.cli.text import one_line

TO_DECIDE = 1  # exit code: somebody has to decide something
_WIDTH = 100

app = typer.Typer(
    help="Move an installation of Airflow to kbroker.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
@examples("kbroker airflow check")
def _group() -> None:
    """Move an installation of Airflow to kbroker; Airflow itself is not needed here."""


@app.command()
@examples(
    "kbroker airflow check",
    "kbroker airflow check --airflow-cfg /opt/airflow/airflow.cfg",
    "kbroker airflow check --json | jq -r .kbroker_toml > kbroker.toml",
)
def check(
    airflow_cfg: Annotated[
        Path | None,
        typer.Option(
            "--airflow-cfg",
            help="By default $AIRFLOW_CONFIG, $AIRFLOW_HOME/airflow.cfg or ~/airflow/airflow.cfg.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say what becomes of the KubernetesExecutor's options, and print the new configuration.

    Reads the sections [kubernetes_executor], [kbroker], [core] and [scheduler] of an
    airflow.cfg, the variables AIRFLOW__SECTION__OPTION, which win over it, and looks for a
    pod_mutation_hook in config/airflow_local_settings.py beside it. Nothing is executed or
    changed, and no URL or unknown value is shown.

    Exit code: 0, 1 when something has to be decided or done by hand, 2 when the file cannot
    be read.
    """
    configured = read_airflow(airflow_cfg, os.environ)
    found = plan(configured, mutation_hook(airflow_cfg, os.environ))
    if json:
        document = orjson.dumps(_document(found), option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(document + b"\n")
        sys.stdout.flush()
    else:
        typer.echo("\n\n".join(_paragraphs(found)))
    if found.decisions:
        raise typer.Exit(TO_DECIDE)


def _document(found: Plan) -> dict[str, Any]:
    return {
        "options": [
            {name: getattr(one, name) for name in Finding.__struct_fields__}
            for one in found.findings
        ],
        "decisions": found.decisions,
        "differences": found.differences,
        "airflow_cfg": airflow_sections(found),
        "kbroker_toml": kbroker_toml(found),
        "environment": environment(found),
    }


def _paragraphs(found: Plan) -> Iterable[str]:
    for one in found.findings:
        yield _explained(one)
    if found.decisions:
        yield _listed("Decide, or do by hand:", found.decisions)
    yield _listed("What will differ:", found.differences)
    yield f"# airflow.cfg, wherever Airflow runs\n\n{airflow_sections(found)}".rstrip()
    title = "# kbroker.toml of launchers and watchers ($KBROKER_CONFIG), with Airflow's broker_url"
    yield f"{title}\n\n{kbroker_toml(found)}".rstrip()
    variables = "\n".join(f"{n}={shlex.quote(v)}" for n, v in environment(found).items())
    yield f"# or as environment variables\n\n{variables}"


def _explained(one: Finding) -> str:
    value = "" if one.value is None else f" = {one_line(one.value)}"
    source = f"  ({one.source})" if one.source else ""
    word = f"{one.fate}: {', '.join(one.becomes)}".removesuffix(": ") if one.fate else "unknown"
    text = f"{word}. {one.why}" if one.why else word
    return f"[{one.section}] {one.option}{value}{source}\n{_wrapped(text, '    ')}"


def _listed(title: str, sentences: Iterable[str]) -> str:
    lines = [_wrapped(one_line(sentence), "  - ", "    ") for sentence in sentences]
    return "\n".join([title, *lines])


def _wrapped(text: str, first: str, then: str | None = None) -> str:
    return textwrap.fill(
        text.replace("`", ""),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=first if then is None else then,
        break_long_words=False,
        break_on_hyphens=False,
    )
