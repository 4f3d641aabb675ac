"""What an executor's scheduler is told, and which pods wait until it has heard."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kbroker.event import Outcome
from kbroker.task import TaskKey
from kbroker.tracked import Tracked

QUEUED, RUNNING, SUCCESS, FAILED = "queued", "running", "success", "failed"

State = tuple[str, str | Outcome]


class EventBuffer:
    """States by task key, until they are handed out; the newest of each.

    Args:
        over: told of a launch whose pod may go, because its end has left the executor's hands.

    Attributes:
        states: what was not handed out yet.
        running: keys of the tasks that were published and are not final.
    """

    def __init__(self, over: Callable[[Tracked], None]) -> None:
        self.states: dict[TaskKey, State] = {}
        self.running: set[TaskKey] = set()
        self._over = over
        self._undelivered: dict[TaskKey, Tracked] = {}
        self._kept: dict[TaskKey, Tracked] = {}

    @property
    def holds(self) -> bool:
        """Whether pods wait for `let_go`."""
        return bool(self._kept)

    def put(self, key: TaskKey, state: str, info: str | Outcome) -> None:
        """Tell a state; a final one frees the task's slot."""
        if state in (SUCCESS, FAILED):
            self.running.discard(key)
        self.states[key] = (state, info)

    def keep(self, tracked: Tracked) -> None:
        """Its end was put: its pod stays until that was handed out."""
        self._undelivered[tracked.key] = tracked

    def hand_out(self, dag_ids: Collection[str] | None, *, keep_pods: bool) -> dict[TaskKey, State]:
        """Everything, or what is about these DAGs; with `keep_pods` pods stay until `let_go`."""
        if dag_ids is None:
            handed, self.states = self.states, {}
        else:
            keys = [key for key in self.states if key.dag_id in dag_ids]
            handed = {key: self.states.pop(key) for key in keys}
        for key in [key for key in self._undelivered if key in handed]:
            tracked = self._undelivered.pop(key)
            if keep_pods:
                self._kept[key] = tracked
            else:
                self._over(tracked)
        return handed

    def let_go(self, key: TaskKey) -> None:
        """The pod of a final state that was handed out may go."""
        tracked = self._kept.pop(key, None)
        if tracked is not None:
            self._over(tracked)

    def forget(self, key: TaskKey) -> Tracked | None:
        """Tell nothing more of a key's launch; returns it if its end was still to be told."""
        self.running.discard(key)
        self.states.pop(key, None)
        return self._undelivered.pop(key, None)
