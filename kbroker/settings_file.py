"""`config/kbroker.toml`, the documented file of all settings, made from their one table.

`python -m kbroker.settings_file` prints it.
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


def document() -> str:
    """The whole file."""
    parts = [_HEAD]
    for section, settings in SECTIONS.items():
        about = (settings.__doc__ or "").strip().splitlines()[0]
        lines = [f"\n[{section}]  # {about}"]
        for entry in fields(settings):
            lines += ["", *_comment(entry.metadata["bounds"])]
            lines.append(f"{entry.name} = {_toml(entry.default)}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _comment(bounds: Bounds) -> list[str]:
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
    text = bounds.meaning + (f" ({'; '.join(allowed)})" if allowed else "")
    return [f"# {line}" for line in textwrap.wrap(text, 88)]


def _toml(value: Any) -> str:
    # The JSON of these types is their TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    sys.stdout.write(document())
