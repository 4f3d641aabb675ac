"""The loop of a run: beat, show, and obey Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from kbroker.cli.hints import Hints
from kbroker.cli.progress import Progress
from kbroker.cli.task_run import TaskRun

_BEAT = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HALTED = "a task failed: cancelling the others (--fail-fast)"
_INTERRUPTED = {
    1: "interrupted: nothing more is launched; waiting for what runs (Ctrl-C again to cancel it)",
    2: "interrupted: cancelling what runs",
}


def drive(run: TaskRun, console: Console, check: Callable[[], None] = lambda: None) -> int:
    """Run to the end, or to where the user ends it; the exit code.

    Ctrl-C once: nothing more is launched, what runs is waited for. Twice, or SIGTERM, or
    the end of the terminal: what runs is cancelled.

    Args:
        run: submitted already.
        console: for the progress.
        check: raises when something that the run needs has ended.
    """
    said, halted = 0, False
    hints = Hints(run.executor, run.places)
    with _interrupting(run) as received, Progress(run, console) as progress:
        while not run.over:
            check()
            run.beat()
            if run.interrupts > said:
                said = run.interrupts
                progress.say(_INTERRUPTED[min(said, 2)])
            if run.halted and not halted:
                halted = True
                progress.say(_HALTED)
            if run.interrupts > 1 or run.halted:
                run.cancel_all()
            for line in [*run.news(), *hints.look()]:
                progress.say(line)
            progress.show(last=run.over)
            time.sleep(_BEAT)
        run.beat()  # lets the last pods go
    hints.close()
    if received:
        return 128 + received[0]
    return 0 if run.as_expected else 1


@contextmanager
def _interrupting(run: TaskRun) -> Iterator[list[int]]:
    """Signals become interrupts of the run; gives those that came."""
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        run.interrupt()
        if number != signal.SIGINT:
            run.interrupt()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
