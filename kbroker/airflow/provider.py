"""What Airflow learns of kbroker by the entry point `apache_airflow_provider`.

Airflow calls this with every command, and checks it against its `provider_info.schema.json`.
"""

from __future__ import annotations

from typing import Any

from kbroker.airflow.options import OPTIONS, SECTION, Option

_SINCE = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """The provider: its executor, its commands, and every option of its section."""
    return {
        "package-name": "kbroker",
        "name": "kbroker",
        "description": "Runs tasks as Kubernetes pods through a broker.",
        "executors": ["kbroker.airflow.KBrokerExecutor"],
        # Airflow before 3.2 asks the executor's class instead.
        "cli": ["kbroker.airflow.cli.get_cli_commands"],
        "config": {
            SECTION: {
                "description": "KBrokerExecutor: tasks as Kubernetes pods through a broker.",
                "options": {option.name: _described(option) for option in OPTIONS.values()},
            }
        },
    }


def _described(option: Option) -> dict[str, Any]:
    return {
        "description": option.description + "\n",
        "version_added": _SINCE,
        "type": option.kind,
        "example": "redis://redis.example:6379/0" if option.name == "broker_url" else None,
        "default": option.default,
        "sensitive": option.sensitive,
        # Or Airflow would look for names to fill in between braces.
        "is_template": "{" in option.default,
    }
