"""The tables of `docs/airflow.md`, made from the options and from the rules of the migration.

`python -m kbroker.airflow.migration.option_page` prints them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from kbroker.airflow.migration.option_rules import EARLIER, RULES, Fate, Rule
from kbroker.airflow.options import OPTIONS, Option
from kbroker.settings_file import meaning

_STARTS = {Fate.SAME: "", Fate.RENAMED: "", Fate.OBSOLETE: "see "}


def own_options() -> str:
    """Every option of the section `[kbroker]`."""
    head = ("option", "default", "meaning", "setting of kbroker")
    return _table(head, map(_own_row, OPTIONS.values()))


def kubernetes_executor_options() -> str:
    """Every option of the KubernetesExecutor, and what it becomes."""
    return _table(("option", "verdict", "here", "why, what to mind"), map(_row, RULES))


def earlier_options() -> str:
    """The same for options that the provider had once."""
    return _table(("option", "verdict", "here", "why, what to mind"), map(_row, EARLIER))


def _own_row(option: Option) -> Sequence[str]:
    return (
        _code(option.name),
        _code(option.default) if option.default else "",
        meaning(option.bounds),
        _code(option.setting) if option.setting else "none",
    )


def _row(rule: Rule) -> Sequence[str]:
    here = ", ".join(map(_code, rule.becomes))
    return _code(rule.option), rule.fate.value, f"{_STARTS[rule.fate]}{here}" * bool(here), rule.why


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write("\n".join((own_options(), kubernetes_executor_options(), earlier_options())))
