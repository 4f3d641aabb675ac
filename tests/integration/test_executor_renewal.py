"""Commands that expire before they are launched, and launches that had started: see `Scene`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kbroker import launch_reasons
from kbroker.event import Cause, PodEvent, PodState, Started
from kbroker.executor import KubernetesExecutor
from kbroker.launch_reply import Refused
from kbroker.message import LaunchMessage, LaunchRequest
from kbroker.redis_client import run
from kbroker.renewal import Renewal
from kbroker.task import Launch
from kbroker.task_state import Step
from kbroker.work_item import failed as given_up
from tests.integration.scene import Scene, failed, key, poll


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


class Mint:
    """Gives commands that are good for a minute, and counts them."""

    def __init__(self) -> None:
        self.asked: list[Launch] = []

    def __call__(self, launch: Launch) -> Renewal | None:
        self.asked.append(launch)
        return Renewal(["run", f"token-{len(self.asked)}"], time.time() + 60)


def want(executor: KubernetesExecutor, scene: Scene, *, good_for: float = -1.0) -> LaunchMessage:
    """Publish a task whose command is good for so long; its message."""
    executor.execute_async(key(), ["run", "token-0"], expires_at=time.time() + good_for)
    executor.heartbeat()
    return scene.queued()[0]


def refuse(scene: Scene, message: LaunchMessage) -> PodEvent:
    """A launcher takes the entry, is told that it expired, and says so."""
    call = scene.records.grant(message.attempt, launcher="scene", expires_at=message.expires_at)
    reply = run(scene.redis, [call])[0]
    assert isinstance(reply, Refused)
    assert reply.why == "expired"
    event = given_up(message, Cause.EXPIRED, launch_reasons.expired(message, reply.now))
    assert scene.report(event) == "applied"
    scene.drop_entries(message.attempt)
    return event


def end(executor: KubernetesExecutor) -> tuple[str, object]:
    """What the executor tells of the task next, but for the states on the way."""

    def over() -> tuple[str, object] | None:
        executor.heartbeat()
        state, info = executor.get_event_buffer().get(key(), ("", None))
        return (state, info) if state in ("success", "failed") else None

    told: tuple[str, object] = poll("the task has ended", over)
    return told


def test_an_expired_command_is_replaced_and_its_launch_goes_first(scene: Scene) -> None:
    mint = Mint()
    executor = scene.executor(renew=mint)
    message = want(executor, scene)
    refuse(scene, message)
    executor.heartbeat()
    executor.heartbeat()
    assert scene.queued() == []
    (again,) = scene.queued("high")
    assert again.attempt == message.attempt
    assert again.command == ("run", "token-1")
    assert mint.asked == [message.attempt.launch]
    assert executor.running == {key()}
    scene.launched(again.attempt)
    scene.watched(scene.pod(again.attempt, PodState.SUCCEEDED, exit_code=0))
    assert end(executor)[0] == "success"


def test_it_may_expire_again_and_again_without_using_up_relaunches(scene: Scene) -> None:
    executor = scene.executor(renew=Mint(), core__relaunch_limit=0)
    message = want(executor, scene)
    for number in range(1, 4):
        refuse(scene, message.changed(expires_at=1))
        executor.heartbeat()
        executor.heartbeat()
        (message,) = scene.queued("high")
        assert message.command == ("run", f"token-{number}")
    assert message.attempt.number == 1


def nothing(_launch: Launch) -> None:
    """A scheduler that has no newer command."""


@pytest.mark.parametrize(
    ("renew", "timeout"),
    [(None, 3600.0), (nothing, 3600.0), (Mint(), 0.01)],
    ids=["nobody to ask", "nothing newer", "past its launch timeout"],
)
def test_otherwise_it_fails_and_says_why(
    scene: Scene, renew: Callable[[Launch], Renewal | None] | None, timeout: float
) -> None:
    executor = scene.executor(renew=renew, core__launch_timeout=timeout)
    message = want(executor, scene)
    if timeout < 1:
        over = message.enqueued_at + timeout * 1000
        poll("its launch timeout is over", lambda: time.time() * 1000 > over)
    refuse(scene, message)
    state, outcome = end(executor)
    assert state == "failed"
    assert outcome.cause is Cause.EXPIRED
    assert "it waited" in outcome.message
    assert scene.queued("high") == []


def test_a_newer_command_is_good_until_the_launch_timeout_at_most(scene: Scene) -> None:
    executor = scene.executor(renew=Mint(), core__launch_timeout=30.0)
    message = want(executor, scene)
    refuse(scene, message)
    executor.heartbeat()
    executor.heartbeat()
    (again,) = scene.queued("high")
    assert again.expires_at == message.enqueued_at + 30_000


def test_a_late_copy_of_the_expired_message_leads_to_one_pod(scene: Scene) -> None:
    executor = scene.executor(renew=Mint())
    message = want(executor, scene)
    refuse(scene, message)
    executor.heartbeat()
    executor.heartbeat()
    # The first launcher was thought dead, and another one got its entry.
    scene.report(given_up(message, Cause.EXPIRED, "too old, says another launcher"))
    executor.heartbeat()
    executor.heartbeat()
    copies = scene.queued("high")
    assert {copy.attempt for copy in copies} == {message.attempt}
    scene.launched(message.attempt)
    for copy in copies:
        call = scene.records.grant(copy.attempt, launcher="other", expires_at=copy.expires_at)
        assert run(scene.redis, [call])[0].why == "launched"


def test_a_relaunch_gets_a_newer_command_too(scene: Scene) -> None:
    executor = scene.executor(renew=Mint())
    message = want(executor, scene, good_for=60)
    scene.take(message.attempt)
    scene.watched(failed(scene, message.attempt, Cause.UNSCHEDULABLE, Started.NEVER))

    def again() -> list[LaunchMessage]:
        executor.heartbeat()
        return scene.queued()

    (next_one,) = poll("it is launched again", again)
    assert next_one.attempt == message.attempt.next()
    assert next_one.command == ("run", "token-1")


def test_a_successor_renews_what_expired_while_nobody_listened(scene: Scene) -> None:
    first = scene.executor("one")
    message = want(first, scene)
    refuse(scene, message)
    first.end()
    second = scene.executor("two", renew=Mint())
    launch = message.attempt.launch
    request = LaunchRequest(launch.key, ["run", "token-0"], launch.launch_id)
    assert second.adopt([request]) == []

    def again() -> list[LaunchMessage]:
        second.heartbeat()
        return scene.queued("high")

    (renewed,) = poll("it is published again", again)
    assert (renewed.attempt, renewed.command) == (message.attempt, ("run", "token-1"))


def test_what_had_started_is_never_launched_again(scene: Scene) -> None:
    """Neither a record nor a pod is left of it, and its scheduler knows that it ran."""
    executor = scene.executor()
    assert executor.adopt([LaunchRequest(key(), ["true"], "launch", started=True)]) == []
    deadline = time.monotonic() + 2 * executor.config.kubernetes.create_window

    def over() -> tuple[str, object] | None:
        scene.bookmark()
        executor.heartbeat()
        return executor.get_event_buffer().get(key())

    state, outcome = poll("it has failed", over)
    assert (state, outcome.cause) == ("failed", Cause.VANISHED)
    assert scene.queued() == []
    assert time.monotonic() < deadline + 8


def test_who_observes_hears_why_it_waits_and_what_follows(scene: Scene) -> None:
    heard: list[tuple[PodState, Cause | None, Step]] = []
    executor = scene.executor(
        observe=lambda event, step: heard.append((event.state, event.cause, step))
    )
    message = want(executor, scene, good_for=60)
    scene.take(message.attempt)
    scene.report(given_up(message, Cause.QUOTA, "no room").changed(state=PodState.WAITING))
    scene.watched(failed(scene, message.attempt, Cause.IMAGE_PULL, Started.NEVER))
    poll("both were heard", lambda: (executor.heartbeat(), len(heard) == 2)[1])
    assert heard == [
        (PodState.WAITING, Cause.QUOTA, Step.NOTE),
        (PodState.FAILED, Cause.IMAGE_PULL, Step.RELAUNCH),
    ]
