"""The broker's contract across processes: workers killed, stopped and paused, Redis lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dramatiq.errors import ConnectionClosed

from kbroker.local.redis_server import EmbeddedRedis
from tests.integration.broker_scene import REDELIVERED_AFTER, Scene

KEY = "{kbroker}:batch"


@pytest.fixture
def scene(redis_url: str, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(redis_url, tmp_path)
    yield scene
    scene.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(folder=tmp_path / "redis") as server:
        yield server


@pytest.fixture
def fragile(own_redis: EmbeddedRedis, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose Redis a test may break."""
    scene = Scene(own_redis.url, tmp_path)
    yield scene
    scene.close()


def numbers(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_a_poison_message_dies_alone(scene: Scene) -> None:
    """It kills a worker three times; what it was handed out with runs, and is not buried."""
    names = [*numbers(8, "before"), "poison", *numbers(8, "after")]
    for name in names:
        scene.send(name, do="kill" if name == "poison" else 0.05)
    for delivery in (1, 2, 3):
        worker = scene.process(4)
        assert worker.popen.wait(10) == -signal.SIGKILL
        assert len(scene.started_of("poison")) == delivery
    scene.process(4)
    scene.until_empty()
    assert [dead["reason"] for dead in scene.dead()] == ["handed out 3 times, never finished"]
    assert set(scene.done()) == set(names) - {"poison"}
    first, *others = scene.ledger.calls()
    assert list(first) == names
    assert all(len(call) == 1 for call in others)
    assert [call["poison"] for call in others if "poison" in call] == [2, 3]


def test_a_lone_worker_that_was_stopped_does_not_begin_again(scene: Scene) -> None:
    """It is silent for so long that its entries are due, but nobody else is there."""
    worker = scene.process(2)
    scene.send("a", until=str(scene.gates))
    scene.until("it works", scene.started)
    for _ in range(2):
        worker.signal(signal.SIGSTOP)
        time.sleep(1.3 * REDELIVERED_AFTER)
        worker.signal(signal.SIGCONT)
        time.sleep(0.5 * REDELIVERED_AFTER)
    scene.open_gate("a")
    scene.until_empty()
    assert scene.started() == ["a"]


def test_a_long_outage_makes_nobody_take_over_from_the_living(
    fragile: Scene, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    fragile.process(1)
    fragile.send("a", until=str(fragile.gates))
    fragile.until("it runs", fragile.started)
    fragile.process(1)
    own_redis.stop()  # it has a folder, and keeps its data
    time.sleep(1.3 * REDELIVERED_AFTER)
    with EmbeddedRedis(own_redis.port, folder=tmp_path / "redis"):
        time.sleep(1.3 * REDELIVERED_AFTER)
        fragile.open_gate("a")
        fragile.until_empty()
        assert fragile.started() == ["a"]


def test_a_worker_waits_until_redis_accepts_it_again(scene: Scene) -> None:
    scene.redis.set(KEY, "a key of another type")
    worker = scene.process(1)
    scene.until("it says why", lambda: "WRONGTYPE" in worker.log.read_text())
    scene.redis.delete(KEY)
    scene.send("a")
    scene.until("it works", scene.done)
    scene.until_empty()
    assert worker.end() == 0
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_that_stops_without_redis_gets_dramatiqs_own_error(
    fragile: Scene, own_redis: EmbeddedRedis
) -> None:
    """dramatiq ends a shutdown half-way on any other."""
    fragile.send("a")
    reader = fragile.sender.consume("batch", timeout=500)
    call = next(reader)
    assert call is not None
    own_redis.stop()
    with pytest.raises(ConnectionClosed):
        reader.requeue([call])
    with pytest.raises(ConnectionClosed):
        reader.close()
