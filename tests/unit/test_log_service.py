"""Requests for logs in a launcher's hands: each taken once, answered in time, in nobody's way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import fakeredis.aioredis
import pytest

from kbroker.event import PodState
from kbroker.keys import RedisKeys
from kbroker.log_message import LogAnswer, LogRequest, reply_name
from kbroker.log_service import LogService

KEYS = RedisKeys()
QUEUE = KEYS.log_queue("default")


class Reading:
    """Answers with the pod's name, as soon as it may."""

    def __init__(self) -> None:
        self.under_way = self.most = 0
        self.read_pods: list[str] = []
        self.within: list[float] = []
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.error: Exception | None = None

    async def read(self, request: LogRequest, ends: float) -> LogAnswer:
        self.read_pods.append(request.pod)
        self.within.append(ends - asyncio.get_running_loop().time())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.may_go.wait()
        finally:
            self.under_way -= 1
        if self.error is not None:
            raise self.error
        return LogAnswer(True, request.pod, PodState.RUNNING)


class World:
    def __init__(self) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server)
        self.reading = Reading()
        self.refusal = ""
        self.slept: list[float] = []

    def service(self) -> LogService:
        return LogService(
            self.reading,
            fakeredis.aioredis.FakeRedis(server=self.server),
            KEYS,
            "default",
            refusal=lambda: self.refusal,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0.01)

    def ask(self, pod: str = "pod", *, left: float = 60.0) -> LogRequest:
        until = int((time.time() + left) * 1000)
        request = LogRequest("prod", "default", "jobs", pod, None, 9, reply_name(), until)
        self.redis.rpush(QUEUE, request.encode())
        return request

    def answer(self, request: LogRequest) -> LogAnswer | None:
        data = self.redis.lpop(KEYS.reply(request.reply))
        return None if data is None else LogAnswer.decode(data)

    async def answered(self, request: LogRequest) -> LogAnswer:
        return await poll(lambda: self.answer(request))


async def poll(condition: Any) -> Any:
    deadline = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    return value


@asynccontextmanager
async def serving(world: World, services: int = 1) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(world.service().run()) for _ in range(services)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_is_answered_once_and_the_answer_does_not_stay_for_ever() -> None:
    world = World()
    requests = [world.ask(f"p{n}") for n in range(30)]
    async with serving(world, services=3):
        await poll(lambda: len(world.redis.keys(KEYS.reply("*"))) == 30)
        assert all(0 < world.redis.pttl(key) <= 10_000 for key in world.redis.keys(KEYS.reply("*")))
        answers = [world.answer(request) for request in requests]
    assert [answer.text for answer in answers if answer] == [f"p{n}" for n in range(30)]
    assert sorted(world.reading.read_pods) == sorted(request.pod for request in requests)
    assert not world.redis.exists(QUEUE)


async def test_nobody_takes_more_than_he_has_hands_for() -> None:
    world = World()
    world.reading.may_go.clear()
    requests = [world.ask(f"p{n}") for n in range(200)]
    async with serving(world):
        await poll(lambda: world.reading.under_way == 8)
        await asyncio.sleep(0.05)
        # What one launcher has not taken is for the others.
        assert world.redis.llen(QUEUE) == 192
        world.reading.may_go.set()
        for request in requests:
            await world.answered(request)
    assert world.reading.most == 8


async def test_a_request_nobody_waits_for_is_dropped() -> None:
    world = World()
    late, wanted = world.ask("late", left=-0.001), world.ask("wanted")
    async with serving(world):
        await world.answered(wanted)
    assert world.answer(late) is None
    assert world.reading.read_pods == ["wanted"]


@pytest.mark.parametrize(("left", "within"), [(60.0, 2.0), (3.0, 2.0), (1.0, 0.7), (0.2, 0.14)])
async def test_the_answer_comes_before_the_asker_goes(left: float, within: float) -> None:
    world = World()
    request = world.ask(left=left)
    async with serving(world):
        await world.answered(request)
    (given,) = world.reading.within
    assert within - 0.1 <= given <= within


async def test_a_refused_launcher_says_so_and_asks_nothing() -> None:
    world = World()
    world.refusal = "no permission to create pods"
    request = world.ask()
    async with serving(world):
        answer = await world.answered(request)
    assert answer == LogAnswer(notes=("the launcher is not ready: no permission to create pods",))
    assert world.reading.read_pods == []


async def test_what_fails_in_an_unexpected_way_is_answered_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.reading.error = RuntimeError("oh")
    request = world.ask()
    async with serving(world):
        assert "the launcher failed to read the log" in (await world.answered(request)).notes[0]
        world.reading.error = None
        assert (await world.answered(world.ask("next"))).text == "next"
    assert [r.message for r in caplog.records] == ["a log cannot be read"]


@pytest.mark.parametrize("garbage", [b"{", b"[]", b'{"v": 1, "reply": "tasks"}', b'{"v": 99}', b""])
async def test_garbage_stops_nothing(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.redis.rpush(QUEUE, garbage)
    async with serving(world):
        assert (await world.answered(world.ask("good"))).text == "good"
    assert [r.action for r in caplog.records] == ["unreadable"]


async def test_a_service_that_ends_answers_what_it_has_begun() -> None:
    world = World()
    world.reading.may_go.clear()
    request = world.ask()
    async with serving(world):
        await poll(lambda: world.reading.under_way)
        asyncio.get_running_loop().call_later(0.05, world.reading.may_go.set)
    answer = world.answer(request)
    assert answer is not None
    assert answer.text == "pod"


async def test_redis_away_is_said_once_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = World()
    world.server.connected = False
    async with serving(world):
        await poll(lambda: len(world.slept) >= 3)
        assert [r.action for r in caplog.records] == ["redis-away"]
        world.server.connected = True
        assert (await world.answered(world.ask())).text == "pod"
        world.redis.set(QUEUE, "not a list")
        await poll(lambda: len(world.slept) >= 6)
        world.redis.delete(QUEUE)
        assert (await world.answered(world.ask())).text == "pod"
    assert [r.action for r in caplog.records] == ["redis-away"] * 2
