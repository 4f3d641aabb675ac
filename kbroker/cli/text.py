"""Text from elsewhere made safe to show: ids and messages may hold anything."""

from __future__ import annotations

from rich.console import Console


def one_line(text: str) -> str:
    """The text in one line, without anything that a terminal would obey.

    Line ends and runs of spaces become one space; other characters that cannot be
    printed become their escape sequences.
    """
    joined = " ".join(text.split())
    if joined.isprintable():
        return joined
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)


def plain_console(*, stderr: bool = False, pipe_width: int | None = None) -> Console:
    """A console that prints texts as they are: Redis keys such as `:watch:` are no emoji.

    Args:
        stderr: standard error instead of standard output.
        pipe_width: columns where it is no terminal, which has its own.
    """
    console = Console(stderr=stderr, emoji=False, markup=False, highlight=False)
    if pipe_width is not None and not console.is_terminal:
        console = Console(
            stderr=stderr, emoji=False, markup=False, highlight=False, width=pipe_width
        )
    return console
