"""Examples at the end of a command's help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[Command], Command]:
    """Append example commands, one a line, to a command's docstring."""

    def append(command: Command) -> Command:
        # Without the backspace the help would flow the lines together:
        # https://click.palletsprojects.com/en/stable/documentation/#preventing-rewrapping
        listed = "\n".join(f"  {line}" for line in lines)
        command.__doc__ = f"{inspect.getdoc(command)}\n\n\b\nExamples:\n{listed}"
        return command

    return append
