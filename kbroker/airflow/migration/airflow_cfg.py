"""What an installation of Airflow has configured, read without Airflow."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Mapping
from pathlib import Path

from kbroker.errors import UsageError
from kbroker.value import Value

# What is read; `kubernetes` is what Airflow before 3 called `kubernetes_executor`.
SECTIONS = ("core", "scheduler", "kubernetes_executor", "kubernetes", "kbroker")
_ENV_PREFIX = "AIRFLOW__"
_HOOK = "pod_mutation_hook"


class Given(Value, frozen=True):
    """The value of an option.

    Attributes:
        text: as it stands there.
        source: path of a file, or an environment variable with its dollar sign.
    """

    text: str
    source: str


Configured = Mapping[tuple[str, str], Given]


def default_path(env: Mapping[str, str]) -> Path:
    """Where Airflow looks for its configuration file."""
    if env.get("AIRFLOW_CONFIG"):
        return Path(env["AIRFLOW_CONFIG"]).expanduser()
    return Path(env.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "airflow.cfg"


def read_airflow(path: Path | None, env: Mapping[str, str]) -> Configured:
    """(section, option) → what is set in the file, or by the environment, which wins.

    Args:
        path: an airflow.cfg; None for the one that Airflow itself would read, if there is one.
        env: the environment.

    Raises:
        UsageError: the file cannot be read, or there is neither file nor variable.
    """
    file = path or default_path(env)
    found = {} if path is None and not file.exists() else _from_file(file)
    found.update(_from_env(env))
    if not found and not file.exists():
        raise UsageError(
            f"there is no {file}, and no variable {_ENV_PREFIX}KUBERNETES_EXECUTOR__…: "
            "name the file with --airflow-cfg"
        )
    return found


def mutation_hook(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Airflow's local settings, if they have a `pod_mutation_hook`; they are not executed.

    Args:
        path: an airflow.cfg; None for the one that Airflow itself would read.
        env: the environment.
    """
    home = Path(env["AIRFLOW_HOME"]).expanduser() if env.get("AIRFLOW_HOME") else None
    for folder in filter(None, ((path or default_path(env)).parent, home)):
        file = folder / "config" / "airflow_local_settings.py"
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        if any(_HOOK in _names(statement) for statement in tree.body):
            return file
    return None


def _names(statement: ast.stmt) -> set[str]:
    """What a statement of a module gives a name to."""
    if isinstance(statement, ast.FunctionDef):
        return {statement.name}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    return set()


def _from_file(path: Path) -> dict[tuple[str, str], Given]:
    # Values may hold secrets: no message quotes a line. Airflow does not mind a repeated option.
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(f"{path}: line {error.lineno} stands outside a [section]") from None
    except configparser.ParsingError as error:
        raise UsageError(f"{path}: line {error.errors[0][0]} is not option = value") from None
    return {
        (section, option): Given(text.strip(), str(path))
        for section in SECTIONS
        if parser.has_section(section)
        for option, text in parser.items(section)
    }


def _from_env(env: Mapping[str, str]) -> dict[tuple[str, str], Given]:
    found = {}
    for variable, text in env.items():
        if variable.startswith(_ENV_PREFIX):
            section, _, option = variable.removeprefix(_ENV_PREFIX).lower().partition("__")
            if section in SECTIONS and option:
                found[section, option] = Given(text.strip(), f"${variable}")
    return found
