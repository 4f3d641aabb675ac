"""The progress of a run: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kbroker.cli.task_progress import State
from kbroker.cli.task_run import TaskRun
from kbroker.cli.text import one_line

_STYLES = {
    State.SUCCESS: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.CANCELLED: "yellow",
}
_SLOWEST = 5
_PLAIN_EVERY = 2.0
_LIVE_EVERY = 0.2
_RATE_OVER = 10.0
_WAITS = 3
_SHORT = 60


class Progress:
    """Shows a run.

    Args:
        run: the run.
        console: where; standard error, so that standard output stays for results.
        clock: monotonic seconds.
    """

    def __init__(
        self, run: TaskRun, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._console = console
        self._clock = clock
        self._begun = clock()
        self._last = 0.0
        self._history: list[tuple[float, int]] = []
        self._waits_said: set[str] = set()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, *, last: bool = False) -> None:
        """Show the present state, if it is time to, or for the last time."""
        now = self._clock()
        if not last and now - self._last < (_LIVE_EVERY if self._live else _PLAIN_EVERY):
            return
        self._last = now
        self._history = [(t, n) for t, n in self._history if now - t <= _RATE_OVER]
        self._history.append((now, self._run.finished))
        if self._live is not None:
            self._live.update(self._picture(now), refresh=True)
        else:
            for line in self._lines(now):
                self.say(line)

    def say(self, text: str) -> None:
        """Say something once, above the progress."""
        self._console.print(text, soft_wrap=True)

    def _rate(self) -> float:
        (begun, before), (now, done) = self._history[0], self._history[-1]
        return (done - before) / (now - begun) if now > begun else 0.0

    def _lines(self, now: float) -> list[str]:
        counts = self._run.counts()
        parts = [f"{counts[state]} {state}" for state in State if counts[state]]
        done, total = self._run.finished, len(self._run.progress)
        spent = now - self._begun
        head = f"{spent:5.0f}s  {done}/{total} done  {self._rate():.1f}/s  {', '.join(parts)}"
        waits = [f"{_short(name)} waits: {why}" for name, why in self._run.waits(_WAITS)]
        fresh = [line for line in waits if line not in self._waits_said]
        self._waits_said.update(fresh)
        return [head, *(f"        {line}" for line in fresh)]

    def _picture(self, now: float) -> RenderableType:
        counts = self._run.counts()
        head = Text.assemble(
            f"{self._run.finished}/{len(self._run.progress)} done  ",
            *[(f"{counts[s]} {s}  ", _STYLES.get(s, "")) for s in State if counts[s]],
            f"{self._rate():.1f} tasks/s  {now - self._begun:.0f} s",
        )
        parts: list[RenderableType] = [head]
        slowest = self._run.slowest(_SLOWEST)
        if slowest:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
            table.add_column(justify="right")
            for task in slowest:
                table.add_row(Text(one_line(task.spec.id)), f"{now - task.since:.0f} s")
            parts += [Text("running for longest", style="dim"), table]
        for name, why in self._run.waits(_WAITS):
            line = Text(f"{_short(name)} waits: {why}", style="yellow", no_wrap=True)
            line.truncate(self._console.width, overflow="ellipsis")
            parts.append(line)
        return Group(*parts)


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= _SHORT else shown[: _SHORT - 1] + "…"
