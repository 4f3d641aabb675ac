"""Launches that dead executors of this deployment still want, for a scheduler that knows better.

Who adopts a launch goes on with it. What had ended for its scheduler before anybody could adopt it
would stay until `watcher.orphan_after`: its record wanted, its pod finished, or running for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbroker.abandoned import Abandoned
from kbroker.departures import how_to_remove
from kbroker.event import PodState
from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.launch_reply import Adopted
from kbroker.message import DeleteMessage
from kbroker.task import Launch


class LeftBehind:
    """Finds them, and ends those that nobody wants.

    Args:
        scheduler: an executor's broker side.

    Every method raises BrokerUnavailableError when Redis is away.
    """

    def __init__(self, scheduler: AirflowKubernetesScheduler) -> None:
        self._scheduler = scheduler
        self._cursor: int | None = None

    @property
    def looking(self) -> bool:
        """Whether a look at all launches is under way."""
        return self._cursor is not None

    def begin(self) -> None:
        """Look at all launches once; `next` gives what is found."""
        self._cursor = 0

    def next(self) -> list[Abandoned]:
        """What is found among the next few hundred launches; one may be found twice."""
        cursor, found = self._scheduler.abandoned(self._cursor or 0)
        self._cursor = cursor or None
        return found

    def end(self, abandoned: Sequence[Abandoned], reason: str) -> None:
        """Close these: what finished goes as it would have, what did not is withdrawn.

        Args:
            abandoned: as they were found; whose owner lives again is left alone.
            reason: why, in words.
        """
        scheduler = self._scheduler
        replies = scheduler.look_up([(x.attempt, *x.place, None, True) for x in abandoned])
        finished: list[tuple[Launch, tuple[()], DeleteMessage | None]] = []
        others = []
        for one, reply in zip(abandoned, replies, strict=True):
            if not isinstance(reply, Adopted) or reply.record.state != "wanted":
                continue
            event = reply.record.event
            launch = one.attempt.launch
            if event is None or not event.final:
                others.append((launch.attempt(reply.record.attempt), *one.place, reason))
            elif event.uid is None:
                finished.append((launch, (), None))
            else:
                succeeded = event.state is PodState.SUCCEEDED
                removal = DeleteMessage(
                    deployment=launch.deployment,
                    cluster=event.cluster,
                    namespace=event.namespace,
                    pod=event.pod,
                    uid=event.uid,
                    removal=how_to_remove(scheduler.config.kubernetes, succeeded=succeeded),
                    reason=reason,
                )
                finished.append((launch, (), removal))
        scheduler.finish(finished)
        scheduler.withdraw(others)
