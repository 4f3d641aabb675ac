"""Whether Airflow's database still wants a launch. Rules only, no I/O."""

from __future__ import annotations

from enum import StrEnum

from kbroker.airflow.launches import Wanted
from kbroker.value import Value

# Of a task instance that runs, or is about to, for the launch that its row names.
WANTED_STATES = frozenset({"queued", "running"})


class Row(Value, frozen=True):
    """What the database says of a task instance.

    Attributes:
        id: that it has now, as text: it gets another one for every try, and when it is cleared.
        state: of the task instance.
        try_number: its present try.
        external_executor_id: the launch that it was queued as last.
        queued_by: the scheduler job that queued it.
    """

    id: str
    state: str | None
    try_number: int
    external_executor_id: str | None
    queued_by: int | str | None


class Standing(StrEnum):
    """What follows for a launch."""

    WANTED = "wanted"
    ELSEWHERE = "elsewhere"  # another scheduler has taken it over
    UNWANTED = "unwanted"  # the task was cleared, marked, queued anew or has ended
    AWAITED = "awaited"  # cleared while it ran: queued anew once we say that it has ended


def standing(wanted: Wanted, row: Row | None, job_id: int | str | None) -> Standing:
    """Judge a launch.

    Args:
        wanted: the launch.
        row: its task instance's; None where there is none any more.
        job_id: of this scheduler.
    """
    if row is None or row.try_number != wanted.task_key.try_number:
        return Standing.UNWANTED
    if row.state == "restarting":
        return Standing.AWAITED
    same = row.id == str(wanted.task_instance)
    if not same or row.external_executor_id not in (None, wanted.launch_id):
        return Standing.UNWANTED
    if row.state not in WANTED_STATES:
        return Standing.UNWANTED
    if row.queued_by is not None and str(row.queued_by) != str(job_id):
        return Standing.ELSEWHERE
    return Standing.WANTED


def stop_now(wanted: Wanted, since: float, now: float, interval: float, grace: float) -> bool:
    """Whether an unwanted launch is to be stopped.

    Args:
        wanted: the launch.
        since: when it was first found unwanted, seconds.
        now: the same clock.
        interval: between two looks, seconds: what has not started is only stopped at a second
            one, because it may have ended so quickly that nobody has told us of its start.
        grace: seconds that a running container has to notice by itself, and to keep its log.
    """
    return now - since >= (grace if wanted.started else interval)
