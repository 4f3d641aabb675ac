"""`docs/redis-keys.md`, every Redis key and how to look at it, made from the header of `keys`.

`python -m kbroker.keys_page` prints it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from kbroker import keys

_HEAD = """\
# Redis keys

Made from the header of [kbroker/keys.py](../kbroker/keys.py) by `python -m kbroker.keys_page`.

"""
_COMMAND = re.compile(r"[A-Z]+ '\$p")


@dataclass(frozen=True, slots=True)
class DocumentedKey:
    """One entry of the header.

    Attributes:
        name: after the prefix.
        meaning: type, owner and life time, in one paragraph.
        commands: of redis-cli, that show it; `$p` stands for the prefix.
    """

    name: str
    meaning: str
    commands: tuple[str, ...]


def documented() -> tuple[str, list[DocumentedKey]]:
    """The header's introduction as one paragraph, and its entries."""
    summary, introduction, *rest = (keys.__doc__ or "").strip().split("\n\n")
    entries: list[list[str]] = []
    for line in "\n".join(rest).splitlines():
        if line[:1].strip():
            name, _, begun = line.partition(" ")
            entries.append([name, begun.strip()])
        else:
            entries[-1].append(line.strip())
    return f"{summary} {_paragraph([introduction])}", [_entry(*entry) for entry in entries]


def _entry(name: str, *lines: str) -> DocumentedKey:
    words = [line for line in lines if line and not _COMMAND.match(line)]
    looks = [line for line in lines if _COMMAND.match(line)]
    commands = tuple(part.strip() for line in looks for part in line.split(";"))
    return DocumentedKey(name, _paragraph(words), commands)


def _paragraph(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def page(prefix: str = keys.RedisKeys().prefix) -> str:
    """The whole page, in Markdown."""
    introduction, entries = documented()
    parts = [_HEAD, introduction.replace("; `$p` stands for the prefix", ""), "\n"]
    for entry in entries:
        looks = "\n".join(f"redis-cli {c.replace('$p', prefix)}" for c in entry.commands)
        shown = f"\n```sh\n{looks}\n```\n" if looks else ""
        parts.append(
            f"\n## {entry.name}\n\n{entry.meaning[:1].upper()}{entry.meaning[1:]}\n{shown}"
        )
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
