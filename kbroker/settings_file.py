"""The documentation of all settings, made from their one table.

`python -m kbroker.settings_file` prints `config/kbroker.toml`, with `--page` it prints
`docs/configuration.md`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import fields
from typing import Any

from kbroker.settings import SECTIONS, Bounds

_HEAD = """\
# Every setting of kbroker, with its default.
#
# kbroker reads the file that --config or $KBROKER_CONFIG names. An environment
# variable KBROKER__SECTION__KEY overrides it, such as KBROKER__CORE__PARALLELISM=32;
# an argument (--set core.parallelism=32) overrides both. An unknown key or a value
# that is not allowed ends the process with one line that says where it stands.
"""
_PAGE_HEAD = """\
# Configuration

Made from the code by `python -m kbroker.settings_file --page`; as a file with the same comments:
[config/kbroker.toml](../config/kbroker.toml).

kbroker reads the TOML file that `--config` or `$KBROKER_CONFIG` names. An environment variable
`KBROKER__SECTION__KEY` wins over the file, an argument `--set section.key=value` over both; a list
in either is separated by commas. An unknown key or a value that is not allowed ends the process
with one line that says where it stands. See what is in force, and where it came from:

```sh
kbroker config show
KBROKER__CORE__PARALLELISM=32 kbroker config show --changed
kbroker config show kubernetes --set kubernetes.namespace=jobs --json
```
"""


def document() -> str:
    """The whole file."""
    parts = [_HEAD]
    for section, settings in SECTIONS.items():
        about = (settings.__doc__ or "").strip().splitlines()[0]
        lines = [f"\n[{section}]  # {about}"]
        for entry in fields(settings):
            lines += ["", *_comment(entry.metadata["bounds"])]
            lines.append(f"{entry.name} = {toml_value(entry.default)}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def page() -> str:
    """The same for a reader, in Markdown."""
    parts = [_PAGE_HEAD]
    for section, settings in SECTIONS.items():
        about = (settings.__doc__ or "").strip().splitlines()[0]
        parts.append(f"\n## [{section}]\n\n{about}\n\n")
        parts.append("| key | default | meaning |\n| --- | --- | --- |\n")
        for entry in fields(settings):
            text = meaning(entry.metadata["bounds"]).replace("|", "\\|")
            parts.append(f"| `{entry.name}` | `{toml_value(entry.default)}` | {text} |\n")
    return "".join(parts)


def _comment(bounds: Bounds) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(meaning(bounds), 88)]


def meaning(bounds: Bounds) -> str:
    """What a setting means, and what it may be, in one sentence."""
    allowed = []
    if bounds.unit:
        allowed.append({"s": "seconds"}.get(bounds.unit, bounds.unit))
    if bounds.least is not None:
        allowed.append(f"at least {bounds.least:g}")
    if bounds.most is not None:
        allowed.append(f"at most {bounds.most:g}")
    if bounds.choices:
        allowed.append("one of " + ", ".join(json.dumps(choice) for choice in bounds.choices))
    if bounds.pattern_means:
        allowed.append(bounds.pattern_means)
    return bounds.meaning + (f" ({'; '.join(allowed)})" if allowed else "")


def toml_value(value: Any) -> str:
    """A setting's value as TOML writes it."""
    # The JSON of these types is their TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    sys.stdout.write(page() if sys.argv[1:] == ["--page"] else document())
