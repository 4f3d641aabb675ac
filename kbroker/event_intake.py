"""What becomes of launches: pod events are applied, and what follows from them is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from kbroker.departures import Departures
from kbroker.event import Outcome, PodEvent
from kbroker.event_buffer import FAILED, RUNNING, SUCCESS, EventBuffer
from kbroker.kube_scheduler import AirflowKubernetesScheduler
from kbroker.launch_registry import LaunchRegistry
from kbroker.publish_queue import PublishQueue
from kbroker.renewal import Renew, renewed
from kbroker.result_stream import Result
from kbroker.task import TaskKey
from kbroker.task_state import DONE, IGNORE, NOTE, RELAUNCH, RENEW, SUCCEED, Step, next_step
from kbroker.tracked import Tracked
from kbroker.unclaimed import Unclaimed

log = logging.getLogger(__name__)

# Takes an event, and what follows from it.
Observe = Callable[[PodEvent, Step], None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a scheduler wants to be asked, and to be told.

    Attributes:
        renew: gives newer commands; None where there are none.
        observe: told every event that is news of a key's newest launch, before what follows.
    """

    renew: Renew | None = None
    observe: Observe | None = None


class EventIntake:
    """Applies events to an executor's launches.

    Args:
        scheduler: the executor's broker side.
        results: what that delivers.
        launches: the executor's.
        ready: those that wait to be published.
        told: what the executor's user is told.
        change_state: puts a state there.
        departures: what is over.
        unclaimed: entries of launches that nobody tracks.
        hooks: the scheduler's.
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
        change_state: Callable[[TaskKey, str, str | Outcome], None],
        hooks: Hooks,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._results = results
        self._launches = launches
        self._ready = ready
        self._told = told
        self._departures = departures
        self._unclaimed = unclaimed
        self._change_state = change_state
        self._renew = hooks.renew
        self._observe = hooks.observe
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
                self._change_state(tracked.key, RUNNING, tracked.launch_id)
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
        state = SUCCESS if tracked.succeeded else FAILED
        self._change_state(tracked.key, state, tracked.outcome(self._clock()))
        self._told.keep(tracked)
