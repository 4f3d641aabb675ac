"""A newer command for a launch whose command is too old to be launched.

A command may be good for a limited time, as one with a token is. Its launch lives on: its
scheduler gives it another command, until `core.launch_timeout` is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from kbroker.message import LaunchMessage, check_command, check_workload
from kbroker.task import Launch
from kbroker.value import Value


class Renewal(Value, frozen=True):
    """What a launch runs from now on.

    Attributes:
        command: argv; never logged.
        expires_at: when it stops being worth launching, seconds since the epoch; None is never.
        workload: see `LaunchRequest`.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"command", "workload"})

    command: Sequence[str]
    expires_at: float | None = None
    workload: str | None = None


# Whoever wants the launch; None where nothing newer can be had.
Renew = Callable[[Launch], Renewal | None]


def renewed(message: LaunchMessage, renewal: Renewal, deadline: int | None) -> LaunchMessage:
    """The same attempt with a newer command.

    Args:
        message: what was published before.
        renewal: what is published now.
        deadline: when the launch itself is over, milliseconds since the epoch; None is never.

    Raises:
        TaskError: the command or the workload is not usable.
    """
    return message.changed(
        command=check_command(renewal.command),
        workload=check_workload(renewal.workload),
        expires_at=earlier(renewal.expires_at, deadline),
    )


def earlier(expires_at: float | None, deadline: int | None) -> int | None:
    """The first of two moments, in ms; the first argument is in seconds, None is never."""
    if expires_at is None:
        return deadline
    expires = int(expires_at * 1000)
    return expires if deadline is None else min(expires, deadline)
