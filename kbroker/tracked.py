"""One launch in an executor's memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from kbroker.errors import TaskError
from kbroker.event import Cause, Outcome, PodEvent
from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.kube_config import KubeConfig
from kbroker.message import (
    DeleteMessage,
    LaunchMessage,
    LaunchRequest,
    Removal,
    check_command,
    check_workload,
)
from kbroker.renewal import earlier
from kbroker.task import Attempt, Launch, TaskKey
from kbroker.task_state import BUFFERED, PHASE_OF, RUNNING, Phase, View


@dataclass(slots=True, eq=False)
class Tracked:
    """A launch that the executor wants, from `execute_async` until its pod may go.

    Attributes:
        message: what is published; its attempt is the present one.
        priority: the priority queue it goes to.
        queued_at: when its scheduler wanted it, seconds since the epoch.
        phase: where it stands.
        attempt_known: False after an adoption, until Redis or a publication says which.
        published_at: when it went to the broker, seconds since the epoch.
        last: the last event applied.
        uid: of the present attempt's pod, if one was seen.
        launched_at: when its pod was first seen.
        started_at: when its container started.
        entries: ids of result stream entries to delete at the end.
        deadline: when it is not to be launched any more, ms since the epoch; None is never.
        not_before: monotonic time before which it is not published (again).
        succeeded: its final state, once it is known.
        newest: whether it speaks for its key, which `LaunchRegistry` decides.
        launch: which launch it is, for all attempts.
        key: the task key.
    """

    message: LaunchMessage
    priority: str
    queued_at: float
    phase: Phase = BUFFERED
    attempt_known: bool = True
    deadline: int | None = None
    published_at: float | None = None
    last: PodEvent | None = None
    uid: str | None = None
    launched_at: float | None = None
    started_at: float | None = None
    entries: list[str] = field(default_factory=list)
    not_before: float = 0.0
    succeeded: bool | None = None
    newest: bool = False
    launch: Launch = field(init=False)
    key: TaskKey = field(init=False)

    def __post_init__(self) -> None:
        self.launch = self.message.attempt.launch
        self.key = self.launch.key

    @property
    def launch_id(self) -> str:
        """The launch id."""
        return self.launch.launch_id

    @property
    def attempt(self) -> Attempt:
        """The present attempt."""
        return self.message.attempt

    @property
    def place(self) -> tuple[str, str]:
        """Cluster and namespace."""
        return self.message.cluster, self.message.namespace

    @property
    def last_of_attempt(self) -> PodEvent | None:
        """The last event applied, if it is of the present attempt."""
        if self.last is None or self.last.attempt.number != self.attempt.number:
            return None
        return self.last

    @property
    def waiting(self) -> str | None:
        """Why it has not started, in words; None when it has."""
        if self.phase is Phase.BUFFERED:
            return "waits to be published"
        if self.phase is Phase.PUBLISHED:
            return "waits for a launcher"
        if self.phase in (Phase.RUNNING, Phase.DONE) or self.last is None:
            return None
        return self.last.message

    def view(self, relaunch_limit: int, now: float, *, renews: bool = False) -> View:
        """What the rules need to know.

        Args:
            relaunch_limit: how many attempts may follow the first.
            now: seconds since the epoch.
            renews: whether its scheduler gives newer commands.
        """
        renewable = renews and (self.deadline is None or now * 1000 < self.deadline)
        expires = self.message.expires_at
        expired = expires is not None and now * 1000 > expires and not renewable
        return View(self.phase, self.attempt.number, self.uid, relaunch_limit, expired, renewable)

    def note(self, event: PodEvent) -> bool:
        """Take in an event of the present or a later attempt; whether it says that it runs now."""
        ran = self.phase is RUNNING
        if event.attempt.number != self.attempt.number:
            self.become(event.attempt.number)
        self.attempt_known = True
        self.last = event
        self.uid = event.uid
        self.phase = PHASE_OF[event.state]
        if event.uid is not None and self.launched_at is None:
            self.launched_at = event.at
        if self.phase is not RUNNING:
            return False
        if self.started_at is None:
            self.started_at = event.at
        return not ran

    def become(self, number: int) -> None:
        """Turn to another attempt, which is not on the broker yet."""
        self.message = self.message.for_attempt(number)
        self.phase = BUFFERED
        self.uid = None
        self.launched_at = self.started_at = None

    def renew(self, message: LaunchMessage) -> None:
        """Turn to a newer message of the present attempt, which is not on the broker yet."""
        self.message = message
        self.phase = BUFFERED

    def outcome(self, now: float) -> Outcome:
        """How it ended; `now` stands in where the cluster gave no time."""
        last = self.last
        if last is None:
            raise ValueError("a launch without an event has no outcome")
        return Outcome(
            launch_id=self.launch_id,
            attempts=self.attempt.number,
            cause=None if self.succeeded else (last.cause or Cause.ERROR),
            exit_code=last.exit_code,
            message=last.message,
            pod=last.pod,
            namespace=last.namespace,
            uid=last.uid,
            queued_at=self.queued_at,
            launched_at=self.launched_at,
            started_at=self.started_at,
            finished_at=last.at or now,
        )

    def removal(self, how: Removal) -> DeleteMessage | None:
        """The request to remove, or to release, the last attempt's pod; None if there is none."""
        last = self.last
        if last is None or last.uid is None:
            return None
        return DeleteMessage(
            deployment=self.attempt.launch.deployment,
            cluster=last.cluster,
            namespace=last.namespace,
            pod=last.pod,
            uid=last.uid,
            removal=how,
            reason="the task has finished",
        )


def track(request: LaunchRequest, config: KubeConfig, executor_id: str, now: float) -> Tracked:
    """Check a request and make it a launch to track.

    Args:
        request: what the scheduler asks for.
        config: defaults for what the request leaves open.
        executor_id: who asks the broker.
        now: seconds since the epoch.

    Raises:
        TaskError: the key, command, launch id or workload is not usable.
        ExecutorConfigError: the executor config is not usable.
    """
    if not isinstance(request.key, TaskKey):
        raise TaskError(f"key must be a TaskKey, not {type(request.key).__name__}")
    overrides = KubernetesExecutorConfig.from_dict(request.executor_config)
    queued_at = now if request.queued_at is None else request.queued_at
    limit = overrides.launch_timeout or config.core.launch_timeout
    deadline = int((queued_at + limit) * 1000) if limit else None
    launch = Launch(config.core.deployment, request.key, request.launch_id)
    message = LaunchMessage(
        attempt=launch.attempt(1),
        executor_id=executor_id,
        cluster=overrides.cluster or config.kubernetes.cluster,
        namespace=overrides.namespace or config.kubernetes.namespace,
        command=check_command(request.command),
        executor_config=overrides.as_dict(),
        enqueued_at=int(queued_at * 1000),
        expires_at=earlier(request.expires_at, deadline),
        workload=check_workload(request.workload),
    )
    known = request.queue is not None and request.queue in config.broker.priorities
    priority = request.queue if known and request.queue else config.broker.default_priority
    return Tracked(message, priority, queued_at, deadline=deadline)
