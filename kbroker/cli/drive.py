"""The loop of a run: beat, show, and obey Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from kbroker.cli.progress import Progress
from kbroker.cli.task_run import TaskRun

_BEAT = 0.1
_HINT_AFTER = 10.0
INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def drive(run: TaskRun, console: Console, check: Callable[[], None] = lambda: None) -> int:
    """Run to the end, or to where the user ends it; the exit code.

    Ctrl-C once: nothing more is launched, what runs is waited for. Twice, or SIGTERM:
    what runs is cancelled.

    Args:
        run: submitted already.
        console: for the progress.
        check: raises when something that the run needs has ended.
    """
    said = 0
    begun = time.monotonic()
    hinted = False
    with _interrupting(run), Progress(run, console) as progress:
        while not run.over:
            check()
            run.beat()
            if run.interrupts > said:
                said = run.interrupts
                progress.say(_INTERRUPTED[min(said, 2)])
            if run.interrupts > 1:
                run.cancel_all()
            if not hinted and time.monotonic() - begun > _HINT_AFTER:
                hinted = True
                hint = _hint(run)
                if hint:
                    progress.say(hint)
            progress.show(last=run.over)
            time.sleep(_BEAT)
        run.beat()  # lets the last pods go
    if run.interrupts:
        return INTERRUPTED
    return 0 if run.as_expected else 1


_INTERRUPTED = {
    1: "interrupted: nothing more is launched; waiting for what runs (Ctrl-C again to cancel it)",
    2: "interrupted: cancelling what runs",
}


def _hint(run: TaskRun) -> str:
    """Why nothing may have happened yet."""
    if run.finished or run.slowest(1):
        return ""
    health = run.executor.scheduler._health_check_kube_watcher()
    if not health.healthy:
        return "hint: no watcher leads; start one: kbroker watcher"
    return "hint: nothing has been launched yet; is a launcher running? kbroker launcher"


@contextmanager
def _interrupting(run: TaskRun) -> Iterator[None]:
    def interrupt(number: int, _frame: FrameType | None) -> None:
        run.interrupt()
        if number == signal.SIGTERM:
            run.interrupt()

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
