"""The watcher's publisher on a real Redis: what it writes with its lease, and nothing without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from kbroker.errors import BrokerUnavailableError, LeaseLostError
from kbroker.event import Cause, PodEvent, PodState
from kbroker.event_publisher import EventPublisher
from kbroker.keys import RedisKeys
from kbroker.message import LaunchMessage
from kbroker.redis_client import connect, connect_async, run
from kbroker.task import Launch, TaskKey
from tests.records import Records

PLACE = ("default", "jobs")
KEYS = RedisKeys()
RECORDS = Records(KEYS, 60.0, 30.0)
ATTEMPT = Launch("kbroker", TaskKey("dag", "task", "run"), "launch-1").attempt(1)
EVENT = PodEvent(ATTEMPT, *PLACE, "pod-1", PodState.PENDING, uid="u1", resource_version=5)
DONE = EVENT.changed(state=PodState.SUCCEEDED, resource_version=9)


@pytest.fixture
def db(redis_url: str) -> redis.Redis:
    """An empty Redis where this watcher leads and executor "e" lives and wants the launch."""
    client = connect(redis_url, 5.0)
    client.set(KEYS.lease(*PLACE), "mine", px=60_000)
    client.set(KEYS.executor("e"), "token", px=60_000)
    return client


@pytest.fixture
async def publisher(redis_url: str, db: redis.Redis) -> AsyncIterator[EventPublisher]:
    client = connect_async(redis_url, 5.0)
    yield EventPublisher(client, RECORDS, PLACE, token="mine", leader="w")
    await client.aclose()


def publish(db: redis.Redis) -> None:
    message = LaunchMessage(ATTEMPT, "e", *PLACE, command=("true",))
    queue = KEYS.launch_queue("default", "normal")
    run(db, [RECORDS.publish("token", message, queue, b"{}")])


def dump(db: redis.Redis) -> dict[bytes, Any]:
    return {key: db.dump(key) for key in sorted(db.keys("*"))}


def removals(db: redis.Redis) -> list[dict[str, Any]]:
    entries = db.xrange(KEYS.delete_queue("default"))
    return [orjson.loads(fields[b"message"])["args"][0] for _, fields in entries]


async def test_flush_applies_in_order_what_was_put(
    publisher: EventPublisher, db: redis.Redis
) -> None:
    publish(db)
    events = [EVENT.changed(resource_version=n, message=f"waits {n}") for n in range(5, 1205)]
    for event in events:
        publisher.put(event)
    assert not db.exists(KEYS.results("e"))
    await publisher.flush()
    told = [PodEvent.decode(f[b"event"]) for _, f in db.xrange(KEYS.results("e"))]
    assert told == events
    assert await publisher.picture() == {"pod-1": events[-1]}
    assert (await publisher.progress()).checkpoint == 1204
    publisher.put(DONE, gone=True)
    await publisher.flush()
    await publisher.flush()
    assert await publisher.picture() == {}


STEPS: dict[str, Callable[[EventPublisher], Awaitable[Any]]] = {
    "flush": lambda p: (p.put(EVENT), p.flush())[1],
    "relisting": lambda p: p.relisting(True),
    "synced": lambda p: p.synced(7),
    "checkpoint": lambda p: p.checkpoint(7),
    "condemn": lambda p: p.condemn([(EVENT, Cause.IMAGE_PULL, "x")]),
    "sweep": lambda p: p.sweep([(DONE, "gone")], "x"),
}


@pytest.mark.parametrize("present", ["another's", None])
@pytest.mark.parametrize("step", STEPS)
async def test_without_the_lease_nothing_is_written(
    publisher: EventPublisher, db: redis.Redis, step: str, present: str | None
) -> None:
    publish(db)
    db.delete(KEYS.lease(*PLACE))
    if present is not None:
        db.set(KEYS.lease(*PLACE), present)
    before = dump(db)
    with pytest.raises(LeaseLostError, match="default/jobs"):
        await STEPS[step](publisher)
    assert dump(db) == before
    # What was put is forgotten.
    db.set(KEYS.lease(*PLACE), "mine")
    await publisher.flush()
    assert await publisher.picture() == {}


async def test_condemned_pods_are_to_be_stopped(publisher: EventPublisher, db: redis.Redis) -> None:
    publish(db)
    assert await publisher.condemn([(EVENT, Cause.IMAGE_PULL, "x")]) == ["stale"]
    publisher.put(EVENT)
    await publisher.flush()
    assert await publisher.condemn([(EVENT, Cause.IMAGE_PULL, "no image")]) == ["applied"]
    asked = removals(db)[0]
    assert (asked["removal"], asked["uid"], asked["resource_version"]) == ("stop", "u1", "5")


async def test_owners(publisher: EventPublisher, db: redis.Redis) -> None:
    other = DONE.changed(attempt=Launch("kbroker", TaskKey("d", "t", "r"), "l").attempt(1))
    publish(db)
    # The record knows better than the annotation.
    assert await publisher.owners([(DONE, "gone"), (other, "gone"), (other, "")]) == [
        ("e", True),
        ("gone", False),
        ("", False),
    ]
    assert await publisher.owners([]) == []


async def test_sweep_removes_a_finished_pod_without_owner(
    publisher: EventPublisher, db: redis.Redis
) -> None:
    assert await publisher.sweep([(DONE, ""), (DONE, "e"), (DONE, "gone")], "why") == [
        "unknown",
        "owned",
        "asked",
    ]
    [asked] = removals(db)
    assert asked == {
        "v": 1,
        "deployment": "kbroker",
        "cluster": "default",
        "namespace": "jobs",
        "pod": "pod-1",
        "uid": "u1",
        "removal": "delete",
        "not_before": 0,
        "reason": "why",
    }


async def test_sweep_leaves_a_pod_whose_record_has_a_living_owner(
    publisher: EventPublisher, db: redis.Redis
) -> None:
    publish(db)
    assert await publisher.sweep([(DONE, "gone")], "why") == ["owned"]
    db.delete(KEYS.executor("e"))
    assert await publisher.sweep([(DONE, "gone")], "why") == ["asked"]


async def test_redis_away(publisher: EventPublisher, unused_port: int) -> None:
    client = connect_async(f"redis://127.0.0.1:{unused_port}", 0.5)
    away = EventPublisher(client, RECORDS, PLACE, token="mine", leader="w")
    for step in STEPS.values():
        with pytest.raises(BrokerUnavailableError):
            await step(away)
    with pytest.raises(BrokerUnavailableError):
        await away.owners([(DONE, "e")])
    await client.aclose()
