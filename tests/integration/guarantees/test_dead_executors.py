"""What an executor that is gone for good leaves in Redis goes, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kbroker.errors import LeaseLostError
from kbroker.event import PodState
from kbroker.event_publisher import EventPublisher
from kbroker.message import LaunchRequest
from kbroker.redis_client import connect_async
from tests.integration.scene import PLACE, Scene, key, poll

GONE_FOR = 100.0


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, core__executor_lease=0.3)
    scene.lead()
    return scene


@pytest.fixture
async def publisher(scene: Scene) -> AsyncIterator[EventPublisher]:
    client = connect_async(scene.config.broker.url, 5.0)
    token = scene.watch_lease.token
    yield EventPublisher(client, scene.records, PLACE, token=token, leader="scene")
    await client.aclose()


def finished(scene: Scene, executor_id: str) -> None:
    """Its pod has finished, and it dies before it has heard of that."""
    executor = scene.executor(executor_id)
    executor.execute_async(key(executor_id), ["true"], launch_id="launch")
    executor.heartbeat()
    attempt = scene.queued()[-1].attempt
    scene.launched(attempt)
    scene.watched(scene.pod(attempt, PodState.SUCCEEDED, exit_code=0))
    poll("its lease ends", lambda: not scene.redis.exists(scene.keys.executor(executor_id)))


def long_ago(scene: Scene, executor_id: str) -> None:
    """It was seen for the last time long ago."""
    scene.redis.zincrby(scene.keys.executors, -2000 * GONE_FOR, executor_id)


def known(scene: Scene) -> list[str]:
    """The executors that Redis knows of."""
    return [name.decode() for name in scene.redis.zrange(scene.keys.executors, 0, -1)]


async def test_its_stream_goes_and_then_its_name(scene: Scene, publisher: EventPublisher) -> None:
    finished(scene, "dead")
    long_ago(scene, "dead")
    assert await publisher.forget(GONE_FOR) == []
    assert not scene.redis.exists(scene.keys.results("dead"))
    assert known(scene) == ["dead"]  # a pod of its may still say something
    assert await publisher.forget(GONE_FOR) == ["dead"]
    assert known(scene) == []


async def test_its_launches_can_be_adopted_all_the_same(
    scene: Scene, publisher: EventPublisher
) -> None:
    finished(scene, "dead")
    long_ago(scene, "dead")
    await publisher.forget(GONE_FOR)
    heir = scene.executor("dead")
    assert heir.adopt([LaunchRequest(key("dead"), ["true"], "launch")]) == []
    heir.heartbeat()
    assert [state for state, _ in heir.get_event_buffer().values()] == ["success"]


async def test_the_living_and_the_lately_dead_keep_theirs(
    scene: Scene, publisher: EventPublisher
) -> None:
    finished(scene, "lately")
    finished(scene, "alive")
    scene.redis.set(scene.keys.executor("alive"), "token")
    long_ago(scene, "alive")
    assert await publisher.forget(GONE_FOR) == []
    assert sorted(known(scene)) == ["alive", "lately"]
    assert scene.redis.exists(*map(scene.keys.results, known(scene))) == 2


async def test_nothing_without_the_watchers_lease(scene: Scene, publisher: EventPublisher) -> None:
    finished(scene, "dead")
    long_ago(scene, "dead")
    scene.redis.set(scene.keys.lease(*PLACE), "another's")
    with pytest.raises(LeaseLostError):
        await publisher.forget(GONE_FOR)
    assert scene.redis.exists(scene.keys.results("dead"))
