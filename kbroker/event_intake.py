"""What becomes of launches: pod events are applied, and what follows from them is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue

from kbroker.departures import Departures
from kbroker.event import PodEvent
from kbroker.event_buffer import RUNNING, EventBuffer
from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.launch_registry import LaunchRegistry
from kbroker.publish_queue import PublishQueue
from kbroker.renewal import Renew, renewed
from kbroker.result_stream import Result
from kbroker.task_state import DONE, IGNORE, NOTE, RELAUNCH, RENEW, SUCCEED, Step, next_step
from kbroker.tracked import Tracked
from kbroker.unclaimed import Unclaimed

log = logging.getLogger(__name__)

# Takes an event, and what follows from it.
Observe = Callable[[PodEvent, Step], None]


class EventIntake:
    """Applies events to an executor's launches.

    Args:
        scheduler: the executor's broker side.
        results: what that delivers.
        launches: the executor's.
        ready: those that wait to be published.
        told: what the executor's user is told.
        departures: what is over.
        unclaimed: entries of launches that nobody tracks.
        renew: gives newer commands; None where there are none.
        observe: told every event that is news of a key's newest launch, before what follows.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        scheduler: AirflowKubernetesScheduler,
        results: SimpleQueue[Result],
        launches: LaunchRegistry,
        ready: PublishQueue,
        told: EventBuffer,
        departures: Departures,
        unclaimed: Unclaimed,
        *,
        renew: Renew | None,
        observe: Observe | None,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._results = results
        self._launches = launches
        self._ready = ready
        self._told = told
        self._departures = departures
        self._unclaimed = unclaimed
        self._renew = renew
        self._observe = observe
        self._clock = clock

    def turn(self) -> None:
        """Take in a bounded batch of the result stream.

        Raises:
            BrokerUnavailableError: Redis is away.
        """
        self._scheduler.sync()
        while not self._results.empty():
            result = self._results.get()
            if result.event is None:
                log.error("%s", result.problem, extra={"action": "unreadable-result"})
                self._scheduler.discard([result.entry])
            else:
                self._take_result(result, result.event)

    def _take_result(self, result: Result, event: PodEvent) -> None:
        tracked = self._launches.get(event.launch)
        if tracked is None:
            # Whoever adopts the launch will want its final event gone with it.
            self._unclaimed.add(event.launch, result.entry)
            return
        self.take(tracked, event)
        if tracked.phase is DONE and event.final:
            tracked.entries.append(result.entry)
        else:
            self._scheduler.discard([result.entry])

    def take(self, tracked: Tracked, event: PodEvent) -> None:
        """Apply one event of a launch, as the state machine says."""
        step = next_step(
            tracked.view(
                self._scheduler.config.core.relaunch_limit,
                self._clock(),
                renews=self._renew is not None,
            ),
            event,
        )
        if step is IGNORE:
            return
        if self._observe is not None and tracked.newest:
            self._observe(event, step)
        self._ready.discard(tracked)
        runs = tracked.note(event)
        if step is NOTE:
            if runs and tracked.newest:
                self._told.put(tracked.key, RUNNING, tracked.launch_id)
        elif step is RELAUNCH or step is RENEW:
            self._launch_again(tracked, event, step)
        else:
            tracked.succeeded = step is SUCCEED
            self._done(tracked)

    def _launch_again(self, tracked: Tracked, event: PodEvent, step: Step) -> None:
        """The next attempt, or the same one once more; with a newer command if there is one."""
        log.info(
            "%s: attempt %d did not start (%s); publishing it again",
            tracked.key,
            event.attempt.number,
            event.cause,
            extra={"action": step.value},
        )
        renewal = None if self._renew is None else self._renew(tracked.launch)
        if step is RELAUNCH:
            tracked.become(event.attempt.number + 1)
        elif renewal is None:
            tracked.succeeded = False
            self._done(tracked)
            return
        else:
            # It has waited for longer than all that are queued; at their end it might never
            # get its turn before it expires again.
            tracked.priority = self._scheduler.config.broker.priorities[0]
        if renewal is not None:
            tracked.renew(renewed(tracked.message, renewal, tracked.deadline))
        self._ready.add(tracked)

    def _done(self, tracked: Tracked) -> None:
        if not tracked.newest:
            self._departures.over(tracked)
            return
        self._told.put_end(tracked, tracked.outcome(self._clock()))
