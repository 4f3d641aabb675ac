"""What a migration plan becomes on paper: an airflow.cfg's sections, a kbroker.toml, variables."""

from __future__ import annotations

from kbroker.airflow.migration.plan import Plan
from kbroker.airflow.options import SECTION
from kbroker.kube_config import ENV_PREFIX, as_text
from kbroker.settings import SECTIONS
from kbroker.settings_file import toml_value

EXAMPLE_URL = "redis://redis.example:6379/0"


def airflow_sections(plan: Plan) -> str:
    """The new parts of airflow.cfg; a URL that is there already is not repeated."""
    lines = ["[core]", f"executor = {plan.executor}", "", f"[{SECTION}]"]
    url = "# broker_url stays as it is" if plan.has_url else f"broker_url = {EXAMPLE_URL}"
    # Airflow replaces what stands behind a single percent sign.
    options = [f"{name} = {text.replace('%', '%%')}" for name, text in plan.options.items()]
    return "\n".join([*lines, url, *options]) + "\n"


def kbroker_toml(plan: Plan) -> str:
    """The configuration file of launchers and watchers."""
    parts = []
    settings = {"broker.url": EXAMPLE_URL, **plan.settings}
    for section in SECTIONS:
        keys = {n.partition(".")[2]: v for n, v in settings.items() if n.startswith(f"{section}.")}
        if keys:
            lines = [f"{key} = {toml_value(value)}" for key, value in keys.items()]
            parts.append("\n".join([f"[{section}]", *lines]) + "\n")
    return "\n".join(parts)


def environment(plan: Plan) -> dict[str, str]:
    """The same as environment variables."""
    settings = {"broker.url": EXAMPLE_URL, **plan.settings}
    return {ENV_PREFIX + n.upper().replace(".", "__"): as_text(v) for n, v in settings.items()}
