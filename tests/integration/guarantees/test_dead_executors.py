"""What an executor that is gone for good leaves in Redis goes, and nothing else."""

from __future__ import annotations

import collections
from collections.abc import AsyncIterator

import pytest

from kbroker.errors import LeaseLostError
from kbroker.event import PodState
from kbroker.event_publisher import EventPublisher
from kbroker.message import LaunchRequest
from kbroker.redis_client import connect_async
from kbroker.task import Launch
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
    own = Launch("kbroker", key(executor_id), "launch")
    poll(
        "published", lambda: executor.heartbeat() or scene.redis.exists(scene.keys.task(own.digest))
    )
    attempt = own.attempt(1)
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
    await publisher.abandon(["dead"])
    assert known(scene) == []


def wanted(scene: Scene) -> dict[str, int]:
    """Owner → how many of its launches never expire."""
    owners: collections.Counter[str] = collections.Counter()
    for digest in scene.redis.zrange(scene.keys.tasks, 0, -1):
        record = scene.keys.task(digest.decode())
        owners[scene.redis.hget(record, "owner").decode()] += scene.redis.ttl(record) == -1
    return dict(owners)


async def test_its_launches_expire_and_nobody_elses(
    scene: Scene, publisher: EventPublisher
) -> None:
    alive = scene.executor("alive")
    for number in range(700):
        alive.execute_async(key(f"t{number}"), ["true"], launch_id="launch")
    published = scene.keys.tasks
    poll("published", lambda: alive.heartbeat() or scene.redis.zcard(published) == 700)
    for name in ("dead", "lately"):
        finished(scene, name)
    scene.redis.set(scene.keys.executor("alive"), "token")
    dead, lately = (Launch("kbroker", key(name), "launch").digest for name in ("dead", "lately"))
    await publisher.abandon(["dead", "alive"])
    assert wanted(scene) == {"alive": 700, "lately": 1}
    assert 0 < scene.redis.ttl(scene.keys.task(dead)) <= scene.config.broker.record_ttl
    assert scene.redis.ttl(scene.keys.task(lately)) == -1
    assert known(scene) == ["alive", "lately"]


async def test_an_executor_that_redis_has_forgotten_is_known_when_it_is_told(
    scene: Scene, publisher: EventPublisher
) -> None:
    finished(scene, "dead")
    scene.redis.delete(scene.keys.executors, scene.keys.results("dead"))
    record = scene.keys.task(Launch("kbroker", key("dead"), "launch").digest)
    scene.redis.hdel(record, "final", "uid")
    scene.watched(scene.pod(Launch("kbroker", key("dead"), "launch").attempt(1), PodState.RUNNING))
    assert known(scene) == ["dead"]


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
    for step in (publisher.forget(GONE_FOR), publisher.abandon(["dead"])):
        with pytest.raises(LeaseLostError):
            await step
    assert scene.redis.exists(scene.keys.results("dead"))


async def test_who_ends_with_launches_of_an_earlier_life_stays_known(scene: Scene) -> None:
    finished(scene, "forgetful")
    scene.executor("forgetful").end()  # nobody asked it to adopt
    assert known(scene) == ["forgetful"]
    tidy = scene.executor("tidy")
    assert known(scene) == ["forgetful", "tidy"]
    tidy.end()
    assert known(scene) == ["forgetful"]
