"""One plain sentence: why a launch waits, or how it ended. Rules only, no I/O."""

from __future__ import annotations

from kbroker.event import Cause, PodEvent, PodState
from kbroker.launch_detail import FURTHEST, Detail
from kbroker.task_state import relaunchable

# A launcher looks at its queues far more often; so does a watcher with bookmarks.
_SILENT_MS = 30_000
_FAILED = {
    Cause.ERROR: "It failed",
    Cause.OOM_KILLED: "It used more memory than its limit and was killed",
    Cause.EVICTED: "Its pod was evicted from its node",
    Cause.PREEMPTED: "Its pod had to make room for a more important one",
    Cause.NODE_LOST: "Its node was lost",
    Cause.DEADLINE_EXCEEDED: "It ran longer than its deadline",
    Cause.IMAGE_PULL: "Its image could not be pulled",
    Cause.CONFIG_ERROR: "Its container could not be configured",
    Cause.INIT_FAILED: "One of its init containers failed",
    Cause.UNSCHEDULABLE: "No node could take its pod",
    Cause.PENDING_TIMEOUT: "Its pod did not start in time",
    Cause.DELETED: "Somebody deleted its pod",
    Cause.VANISHED: "Its pod is gone, and nobody saw how it ended",
    Cause.ADMISSION: "The Kubernetes API refused its pod",
    Cause.QUOTA: "There was no room for its pod in the namespace",
    Cause.EXPIRED: "It waited too long to be launched",
    Cause.DEAD: "Its message could not be processed",
    Cause.UNREACHABLE: "The Kubernetes API could not be used",
    Cause.THROTTLED: "The Kubernetes API asked to come back later, too often",
    Cause.CANCELLED: "It was cancelled",
}


def explain(seen: Detail) -> str:
    """Why it waits or how it ended, first what matters most; one to three sentences."""
    record, event = seen.record, seen.record.event
    if record.state == "withdrawn":
        if event is not None and event.cause is Cause.CANCELLED:
            return _sentence("It was", event.message or "cancelled")
        return _sentence("It was withdrawn:", seen.reason or "its executor does not want it")
    if event is not None and event.final:
        return " ".join([_end(event, record.state), *_unnoticed(seen)])
    if record.dead:
        return _sentence("Its message could not be processed and is dead:", record.dead)
    if event is not None and event.state in (PodState.PENDING, PodState.RUNNING):
        return " ".join([*_pod(seen, event), *_unnoticed(seen)])
    return " ".join([_before_its_pod(seen, event), *_again(seen), *_owner(seen)])


def _end(event: PodEvent, state: str) -> str:
    if event.state is PodState.SUCCEEDED:
        return "It succeeded."
    what = _FAILED[event.cause or Cause.ERROR]
    if event.exit_code is not None:
        what += f" with exit code {event.exit_code}"
    text = _sentence(f"{what}:", event.message) if event.message else f"{what}."
    if state == "wanted" and relaunchable(event):
        text += " Nothing of it had started, so its executor may launch it again."
    return text


def _pod(seen: Detail, event: PodEvent) -> list[str]:
    if seen.record.condemned:
        return ["Its pod is being stopped, it cannot get any further."]
    if event.state is PodState.RUNNING:
        node = f" on node {event.node}" if event.node else ""
        return [f"It is running{node}.", *_again(seen)]
    if event.message:
        return [_sentence("Its pod has not started:", event.message), *_again(seen)]
    return ["Its pod exists and has not started yet.", *_again(seen)]


def _before_its_pod(seen: Detail, event: PodEvent | None) -> str:
    message, record = seen.message, seen.record
    why = event.message if event is not None and event.state is PodState.WAITING else None
    if message.place == "parked":
        due = max(0, message.due - seen.now) / 1000
        reason = f": {why}" if why else ""
        again = f"a launcher tries again in {due:.0f} s"
        if event is not None and event.cause is Cause.QUOTA:
            again = "launchers look for room once a second"
        return f"It is parked{reason.rstrip('.')}; {again}."
    if message.place == "in hand":
        if seen.not_before > seen.now:
            wait = (seen.not_before - seen.now) / 1000
            return f"The Kubernetes API asked all launchers to wait for {wait:.0f} s more."
        return f"Launcher {message.holder} has it in hand for {message.held_for / 1000:.0f} s."
    if message.place == "queued":
        return _queued(seen)
    if record.create_before > seen.now:
        left = (record.create_before - seen.now) / 1000
        return (
            f"Launcher {seen.launcher or 'unknown'} may have created its pod, which nobody has "
            f"seen yet; its permission ends in {left:.0f} s."
        )
    return "Its message is on no queue and no pod is known: its executor will publish it again."


def no_launcher(queue: str, newest_look: int | None) -> str | None:
    """That no launcher is running, where nobody looks at a queue; None where somebody does.

    Args:
        queue: name of the stream.
        newest_look: since when (ms) no launcher has looked at it; None where none ever did.
    """
    if newest_look is None:
        return f"No launcher is running for queue {queue}: start one with kbroker launcher."
    if newest_look > _SILENT_MS:
        return (
            f"No launcher is running: the last one looked at queue {queue} "
            f"{newest_look / 1000:.0f} s ago. Start one with kbroker launcher."
        )
    return None


def _queued(seen: Detail) -> str:
    message = seen.message
    nobody = no_launcher(message.queue, message.newest_look)
    if nobody is not None:
        return nobody
    if message.ahead == 0:
        return "It is next: a launcher will take it at any moment."
    count = f"more than {FURTHEST}" if message.ahead >= FURTHEST else str(message.ahead)
    return f"It waits for a launcher, with {count} before it in the queue."


def _again(seen: Detail) -> list[str]:
    repeats = seen.record.attempt - 1
    if not repeats:
        return []
    times = "once" if repeats == 1 else f"{repeats} times"
    return [f"It was launched again {times}, because its pod failed before anything started."]


def _unnoticed(seen: Detail) -> list[str]:
    """What keeps its end from being noticed."""
    if seen.record.state != "wanted":
        return []
    silent = []
    event = seen.record.event
    if not seen.leads and not (event is not None and event.final):
        leader = seen.watched.leader if seen.watched is not None else ""
        last = f" ({leader} was the last)" if leader else ""
        silent = [f"No watcher leads{last}, so what follows is not seen: start kbroker watcher."]
    return [*silent, *_owner(seen)]


def _owner(seen: Detail) -> list[str]:
    if seen.owner_alive or seen.record.state != "wanted":
        return []
    since = ""
    if seen.owner_seen is not None:
        since = f", last seen {max(0, seen.now - seen.owner_seen) / 1000:.0f} s ago"
    return [f"Its executor {seen.record.owner} is gone{since}: nobody notes its end meanwhile."]


def _sentence(start: str, text: str) -> str:
    return f"{start} {' '.join(text.split()).rstrip('.')}."
