"""Scripts in pipelines: unknown to Redis, mixed, and with Redis away."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from kbroker.errors import BrokerUnavailableError, ConfigError
from kbroker.event import PodState
from kbroker.launch_reply import Granted, Published, Refused
from kbroker.lease import Lease
from kbroker.redis_client import connect, connect_async, run, run_async
from kbroker.result_stream import ResultStream, read_picture, read_watch
from kbroker.task import Launch, TaskKey
from tests.integration.launch_record.world import World, pod_name, queue_entry, token


def mixed(world: World) -> list:
    """Five calls of four scripts, with replies that tell them apart."""
    message = world.message()
    entry = queue_entry("launch.default.normal", "launch", message.as_dict())
    return [
        world.records.grant(world.attempt(), launcher="l", expires_at=None),
        world.records.publish(token("exec-1"), message, world.queue, entry),
        world.records.grant(world.attempt(), launcher="l", expires_at=None),
        world.records.report(world.event(PodState.PENDING)),
        world.records.grant(world.attempt(), launcher="l", expires_at=None),
    ]


def check(replies: list) -> None:
    absent, published, granted, applied, launched = replies
    assert isinstance(absent, Refused)
    assert absent.why == "absent"
    assert isinstance(published, Published)
    assert isinstance(granted, Granted)
    assert applied == "applied"
    assert launched.why == "launched"


@pytest.mark.parametrize("known", ["all", "none"])
def test_replies_stand_in_the_calls_order(world: World, known: str) -> None:
    if known == "all":
        check(run(world.redis, mixed(world)))
        world.redis.delete(world.task_key, world.queue)
    else:
        world.redis.script_flush()
    check(run(world.redis, mixed(world)))


def test_a_pipeline_of_known_and_unknown_scripts_keeps_its_order(world: World) -> None:
    """Only the calls that Redis did not know are repeated; each reply finds its place."""
    world.published()
    world.redis.script_flush()
    world.withdraw()
    calls = [
        world.records.withdraw(
            token("exec-1"), "exec-1", world.attempt(), ("default", "default"), "again"
        ),
        world.records.grant(world.attempt(), launcher="l", expires_at=None),
        world.records.finish(token("exec-1"), "exec-1", world.launch, [], None),
        world.records.adopt(
            token("exec-1"), "exec-1", world.attempt(), ("default", "default"), [pod_name(1)]
        ),
    ]
    withdrawn, refused, finished, adopted = run(world.redis, calls)
    assert withdrawn == "withdrawn"
    assert refused.why == "withdrawn"
    assert finished == "ok"
    assert adopted.record.state == "withdrawn"


def test_redis_forgets_the_scripts_between_calls(world: World) -> None:
    world.published()
    world.redis.script_flush()
    assert isinstance(world.grant(), Granted)
    world.redis.script_flush()
    assert world.report(world.event(PodState.SUCCEEDED)) == "applied"
    world.redis.script_flush()
    assert world.finish() == "ok"


async def test_on_an_event_loop(world: World, redis_url: str) -> None:
    client = connect_async(redis_url, 5.0)
    world.redis.script_flush()
    check(await run_async(client, mixed(world)))
    assert await run_async(client, []) == []
    await client.aclose()


def test_no_calls(world: World) -> None:
    assert run(world.redis, []) == []


async def test_redis_away(world: World, unused_port: int) -> None:
    url = f"redis://user:secret@127.0.0.1:{unused_port}/0"
    away = connect(url, 0.5)
    spent = ResultStream(away, "results")
    spent.discard(["0-1"])
    for ask in (
        lambda: run(away, mixed(world)),
        lambda: Lease(away, "lease", 1.0).renew(),
        lambda: ResultStream(away, "results").read(10),
        spent.flush,
        lambda: ResultStream(away, "results").remove(),
        lambda: read_watch(away, "watch"),
        lambda: read_picture(away, "pods"),
    ):
        with pytest.raises(BrokerUnavailableError) as failure:
            ask()
        assert "secret" not in str(failure.value)
    client = connect_async(url, 0.5)
    with pytest.raises(BrokerUnavailableError):
        await run_async(client, mixed(world))
    await client.aclose()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", ""])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"broker\.url"):
        connect(url, 1.0)
    with pytest.raises(ConfigError, match=r"broker\.url"):
        connect_async(url, 1.0)


def test_a_url_that_is_none_does_not_leak_its_password() -> None:
    with pytest.raises(ConfigError) as failure:
        connect("http://user:secret@localhost", 1.0)
    assert "secret" not in str(failure.value)


def test_many_calls_of_one_script(world: World) -> None:
    """They go together, in pieces; each has its own reply, in order."""
    launches = [Launch("prod", TaskKey("dag", f"task-{n}", "run"), "one") for n in range(171)]
    wanted = launches[::3]
    calls = []
    for launch in wanted:
        message = world.message().changed(attempt=launch.attempt(1))
        entry = queue_entry("launch.default.normal", "launch", message.as_dict())
        calls.append(world.records.publish(token("exec-1"), message, world.queue, entry))
    entries = [reply.entry for reply in run(world.redis, calls)]
    assert entries == world.entries()
    grants = [
        world.records.grant(launch.attempt(1), launcher="l", expires_at=None) for launch in launches
    ]
    replies = run(world.redis, grants)
    assert [isinstance(reply, Granted) for reply in replies] == [x in wanted for x in launches]


def test_a_call_that_redis_refuses_ends_alone(world: World) -> None:
    """As in a pipeline, its neighbours are carried out; the failure is raised."""
    launches = [Launch("prod", TaskKey("dag", f"task-{n}", "run"), "one") for n in range(3)]
    calls = []
    for launch in launches:
        message = world.message().changed(attempt=launch.attempt(1))
        calls.append(world.records.publish(token("exec-1"), message, world.queue, b"{}"))
    spoilt = world.keys.task(launches[1].digest)
    world.redis.set(spoilt, "not a hash")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        run(world.redis, calls)
    assert world.redis.type(world.keys.task(launches[0].digest)) == b"hash"
    assert world.redis.type(world.keys.task(launches[2].digest)) == b"hash"
    assert len(world.entries()) == 2


async def test_who_is_cancelled_leaves_no_reply_behind(world: World, redis_url: str) -> None:
    client = connect_async(redis_url, 5.0)
    grant = world.records.grant(world.attempt(), launcher="l", expires_at=None)
    await run_async(client, [grant])
    world.redis.client_pause(200)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run_async(client, [grant])
    report = world.records.report(world.event(PodState.PENDING))
    assert await run_async(client, [report]) == ["unknown"]
    await client.aclose()
