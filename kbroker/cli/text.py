"""Text from elsewhere made safe to show: ids and messages may hold anything."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text in one line, without anything that a terminal would obey.

    Line ends and runs of spaces become one space; other characters that cannot be
    printed become their escape sequences.
    """
    joined = " ".join(text.split())
    if joined.isprintable():
        return joined
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
