"""What really ran: one line for each start and end of a task's container, written by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Lines this short are appended whole. In a container's command `$$` stands for `$`:
# https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
SCRIPT = """
note() {
  printf '%s %s %s %s %s %s %s %s\\n' "$1" "$2" "$TASK" "$LAUNCH" "$ATTEMPT" "$POD_UID" "$$$$" \\
    "$(date +%s)" >> "$LEDGER"
}
note start -
case "$DOES" in
  fail) sleep "$TAKES"; note end 3; exit 3 ;;
  restart)
    if mkdir "$SCRATCH/$POD_UID" 2>/dev/null; then exit 1; fi
    rmdir "$SCRATCH/$POD_UID"; sleep "$TAKES"; note end 0 ;;
  eat) head -c 512M /dev/zero | tail ;;
  hang) sleep 600 ;;
  *) sleep "$TAKES"; note end 0 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A container of a task started, or ended by itself.

    Attributes:
        end: whether it ended.
        code: with which exit code; None for a start.
        task: task id.
        launch: launch id.
        attempt: of the launch.
        uid: of the pod.
        pid: of the container's first process.
        at: seconds since the epoch.
    """

    end: bool
    code: int | None
    task: str
    launch: str
    attempt: int
    uid: str
    pid: int
    at: float


def read(path: Path) -> list[Line]:
    """The lines of a ledger, in the order of writing.

    Raises:
        ValueError: a line is not of the script's.
    """
    return list(parse(path.read_text().splitlines()))


def parse(lines: Iterable[str]) -> Iterable[Line]:
    """Lines from their text; raises as `read`."""
    for text in lines:
        what, code, task, launch, attempt, uid, pid, at = text.split(" ")
        yield Line(
            end=what == "end",
            code=int(code) if what == "end" else None,
            task=task,
            launch=launch,
            attempt=int(attempt),
            uid=uid,
            pid=int(pid),
            at=float(at),
        )
