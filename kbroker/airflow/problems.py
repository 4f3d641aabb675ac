"""What an event tells the author of a DAG: entries of Airflow's log of task events. Rules only."""

from __future__ import annotations

from kbroker.event import PodEvent, PodState
from kbroker.task_state import FAIL, NOTE, RELAUNCH, RENEW, Step
from kbroker.value import Value


class Problem(Value, frozen=True):
    """One entry.

    Attributes:
        event: what happened, in a word or two.
        extra: why, in words.
        told: tells it apart from what was said before of the same launch.
    """

    event: str
    extra: str
    told: str


def problem(event: PodEvent, step: Step) -> Problem | None:
    """What there is to say of an event; None where all goes well.

    Args:
        event: what is news of a launch.
        step: what follows from it.
    """
    why = f"{event.cause}: {event.message or 'no message'}" if event.cause else ""
    told = f"{step}:{event.attempt.number}:{event.state}:{event.cause}"
    if step is NOTE and event.cause and event.state is PodState.WAITING:
        return Problem("launch waits", why, told)
    if step is NOTE and event.cause and event.state is PodState.PENDING:
        return Problem("pod has not started", f"pod {event.pod}: {why}", told)
    if step is RELAUNCH:
        return Problem(
            "launched again",
            f"pod {event.pod} failed before anything started, which uses up no try: {why}",
            told,
        )
    if step is RENEW:
        return Problem("launch renewed", f"it waits with a new token: {event.message}", told)
    if step is FAIL:
        where = f"pod {event.pod}: " if event.uid else "not launched: "
        return Problem("launch failed", where + why, told)
    return None
