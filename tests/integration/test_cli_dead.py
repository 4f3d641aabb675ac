"""`kbroker dead`: what is shown, what may be put back, what is forgotten."""

from __future__ import annotations

import json
import time

import orjson
import pytest

from kbroker.event import Cause, PodState, Started
from kbroker.message import DeleteMessage, LaunchMessage, SecretMessage
from kbroker.redis_client import run
from tests.integration.in_process import Cli, command
from tests.integration.scene import Scene, key

SECRET = "s3cret"


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url, kubernetes__create_window=30.0)  # no test waits for its end
    scene.lead()
    return scene


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return command("dead", scene, monkeypatch, capsys)


@pytest.fixture
def message(scene: Scene) -> LaunchMessage:
    """A published launch."""
    executor = scene.executor()
    executor.execute_async(key(), ["echo", SECRET], launch_id="launch", queue="high")
    executor.heartbeat()
    return scene.queued("high")[0]


def bury(scene: Scene, body: object, queue: str, entry: str = "", event=None) -> str:
    """To the dead stream, as a launcher or a queue's consumer does it; its id."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    run(scene.redis, [scene.records.bury(queue, entry, "it cannot be done", raw, event)])
    return scene.redis.xrevrange(scene.keys.dead, count=1)[0][0].decode()


def buried_launch(scene: Scene, message: LaunchMessage, event=None) -> str:
    queue = scene.keys.launch_queue("default", "high")
    ((entry, fields),) = scene.redis.xrange(queue)
    return bury(scene, fields[b"message"], queue, entry.decode(), event)


REMOVAL = DeleteMessage("default", "default", "default", "a-pod", "uid-1", reason="over")
SECRETS = SecretMessage("default", "default", "default", "key-1")


def test_nothing(scene: Scene, cli: Cli) -> None:
    assert cli("list") == (0, "no message is dead\n", "")
    assert cli("list", "--json")[1] == "[]\n"
    assert cli("purge", "--all")[:2] == (0, "0 forgotten\n")
    assert cli("replay", "--all")[:2] == (0, "")
    for step in ("show", "replay", "purge"):
        for name in ("1-0", "nonsense"):
            code, _, err = cli(step, name)
            assert (code, "no dead message" in err) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [["replay"], ["replay", "1-0", "--all"], ["purge"], ["purge", "--older-than", "x"],
     ["purge", "1-0", "--all"], ["purge", "--all", "--older-than", "1d"]],
)  # fmt: skip
def test_a_wrong_command_line(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("kbroker: error: ")


def test_nothing_private_is_shown_unasked(scene: Scene, message: LaunchMessage, cli: Cli) -> None:
    launch = buried_launch(scene, message)
    garbage = bury(scene, f"{{{SECRET}".encode(), "q")
    _code, out, _ = cli("list", "--json")
    assert [(row["id"], row["kind"]) for row in json.loads(out)] == [
        (launch, "launch"),
        (garbage, "unreadable"),
    ]
    shown = [out, cli("list")[1]]
    for name in (launch, garbage):
        shown += [cli("show", name)[1], cli("show", name, "--json")[1]]
        assert SECRET in cli("show", name, "--show-command")[1]
        assert SECRET in cli("show", name, "--show-command", "--json")[1]
    assert SECRET not in "".join(shown)
    assert "command: ***" in cli("show", launch)[1]
    assert str(key()) in cli("list")[1]


def waiting(scene: Scene, message: LaunchMessage):
    event = scene.pod(message.attempt, PodState.WAITING, uid=None, resource_version=0)
    return event.because(Cause.DEAD, "killed 3 launchers")


def executor_knows(scene: Scene, message: LaunchMessage) -> str:
    return buried_launch(scene, message, waiting(scene, message))


def granted(scene: Scene, message: LaunchMessage) -> str:
    run(scene.redis, [scene.records.grant(message.attempt, launcher="l", expires_at=None)])
    return buried_launch(scene, message)


def launched(scene: Scene, message: LaunchMessage) -> str:
    name = buried_launch(scene, message)
    scene.report(scene.pod(message.attempt, PodState.PENDING))
    return name


def failed(scene: Scene, message: LaunchMessage) -> str:
    name = buried_launch(scene, message)
    event = scene.pod(message.attempt, PodState.FAILED, uid=None, started=Started.NEVER)
    scene.report(event)
    return name


def cancelled(scene: Scene, message: LaunchMessage) -> str:
    name = buried_launch(scene, message)
    run(scene.redis, [scene.records.cancel(message.attempt.launch.digest, "cancelled by a@b")])
    return name


def finished(scene: Scene, message: LaunchMessage) -> str:
    name = launched(scene, message)
    scene.redis.hset(scene.keys.task(message.attempt.launch.digest), "state", "final")
    return name


def forgotten(scene: Scene, message: LaunchMessage) -> str:
    name = buried_launch(scene, message)
    scene.redis.delete(scene.keys.task(message.attempt.launch.digest))
    return name


def published_again(scene: Scene, message: LaunchMessage) -> str:
    queue = scene.keys.launch_queue("default", "high")
    ((_, fields),) = scene.redis.xrange(queue)
    return bury(scene, fields[b"message"], queue)


def a_later_attempt(scene: Scene, message: LaunchMessage) -> str:
    name = buried_launch(scene, message)
    scene.redis.hset(scene.keys.task(message.attempt.launch.digest), "attempt", "2")
    return name


def garbage(scene: Scene, message: LaunchMessage) -> str:
    return bury(scene, b"{", "q")


@pytest.mark.parametrize(
    ("stage", "outcome"),
    [
        (executor_knows, "dead"),
        (granted, "window"),
        (launched, "launched"),
        (failed, "final"),
        (cancelled, "withdrawn"),
        (finished, "final"),
        (forgotten, "absent"),
        (published_again, "waiting"),
        (a_later_attempt, "attempt"),
        (garbage, "garbage"),
    ],
)
def test_what_could_start_twice_is_not_put_back(
    scene: Scene, message: LaunchMessage, cli: Cli, stage, outcome: str
) -> None:
    name = stage(scene, message)
    queue, dead = scene.keys.launch_queue("default", "high"), scene.keys.dead
    before = (scene.redis.xrange(queue), scene.redis.xrange(dead), scene.record(message.attempt))
    code, out, _ = cli("replay", name, "--json")
    assert (code, [row["outcome"] for row in json.loads(out)]) == (1, [outcome])
    assert before == (
        scene.redis.xrange(queue), scene.redis.xrange(dead), scene.record(message.attempt)
    )  # fmt: skip
    assert "not put back: " in cli("replay", name)[1]


def test_a_launch_that_nobody_was_told_about(
    scene: Scene, message: LaunchMessage, cli: Cli
) -> None:
    """Its consumer could not read it: the record still waits for it."""
    name = buried_launch(scene, message)
    assert scene.queued("high") == []
    code, out, _ = cli("replay", name)
    assert (code, out.endswith(": put back\n")) == (0, True)
    assert scene.queued("high") == [message]
    ((entry, _),) = scene.redis.xrange(scene.keys.launch_queue("default", "high"))
    assert scene.record(message.attempt)["entry"] == entry.decode()
    assert scene.redis.xlen(scene.keys.dead) == 0
    assert cli("replay", name)[0] == 3
    scene.take(message.attempt)


def test_removals_and_secrets_can_always_be_put_back(scene: Scene, cli: Cli) -> None:
    parked = {**REMOVAL.as_dict(), "parked": {"times": 3}}
    bury(scene, parked, scene.keys.parked("default"))
    bury(scene, SECRETS.as_dict(), scene.keys.secrets_queue("default"))
    bury(scene, b"{", "q")
    code, out, _ = cli("replay", "--all", "--json")
    assert (code, [row["outcome"] for row in json.loads(out)]) == (1, ["ok", "ok", "garbage"])
    assert [DeleteMessage.from_dict(body) for body in scene.removals()] == [REMOVAL]
    ((_, fields),) = scene.redis.xrange(scene.keys.secrets_queue("default"))
    assert SecretMessage.from_dict(orjson.loads(fields[b"message"])["args"][0]) == SECRETS


def test_purge(scene: Scene, cli: Cli) -> None:
    old = f"{int((time.time() - 7200) * 1000)}-0"
    fields = {"queue": "q", "entry": "", "reason": "r", "message": "{"}
    scene.redis.xadd(scene.keys.dead, fields, id=old)
    new = [bury(scene, b"{", "q") for _ in range(3)]
    assert cli("purge", "--older-than", "3h")[1] == "0 forgotten\n"
    assert json.loads(cli("purge", "--older-than", "1h", "--json")[1]) == {"purged": 1}
    assert cli("purge", new[0])[1] == "1 forgotten\n"
    assert cli("purge", "--all")[1] == "2 forgotten\n"
    assert scene.redis.xlen(scene.keys.dead) == 0
