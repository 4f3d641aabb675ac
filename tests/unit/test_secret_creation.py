"""One Secret created or replaced: what is asked of the API server, and what waits."""

from __future__ import annotations

import base64
import logging
from typing import Any

import orjson
import pytest

from kbroker.message import SecretMessage
from kbroker.secret_creation import SecretCreation
from kbroker.service_account_key import ServiceAccountKey
from kbroker.work_item import Done, Leave, Park
from tests.unit.launcher_scene import (
    CONFLICT,
    EXISTS,
    LOST,
    NOT_FOUND,
    NOW,
    UNAUTHORIZED,
    Scene,
    error,
    item,
)

MESSAGE = SecretMessage("prod", "default", "jobs", "gcp-key")
CONTENT = b'{"private_key": "-----BEGIN hush-----"}'
ENCODED = base64.b64encode(CONTENT).decode()
OURS = {"app.kubernetes.io/managed-by": "kbroker", "kbroker/deployment": "prod"}
DENIED = error(
    403,
    'secrets is forbidden: User "x" cannot create resource "secrets" in API group "" in the '
    'namespace "jobs"',
    "Forbidden",
)
# A refusal may quote what was sent.
INVALID = error(422, f"Secret is invalid: data: {ENCODED} {CONTENT.decode()}", "Invalid")


def secret(labels: dict[str, str] | None = None, **values: Any) -> bytes:
    metadata = {
        "name": "gcp-key",
        "uid": "u-1",
        "resourceVersion": "41",
        "labels": labels,
        "annotations": {"note": "kept"},
    }
    return orjson.dumps({"metadata": metadata, "type": "Opaque", **values})


class World:
    def __init__(self, path, **answers):
        answers = {"create_secret": [b""], "replace_secret": [b""], **answers}
        self.scene = Scene(**answers)
        keys = {"gcp-key": ServiceAccountKey("gcp-key", str(path))}
        self.creation = SecretCreation(
            self.scene.kube, self.scene.calls, keys, self.scene.settings, rng=self.scene.rng
        )

    async def put(self, message=MESSAGE, **values):
        return await self.creation.put(item(message, **values), message, NOW)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "key.json"
    path.write_bytes(CONTENT)
    return path


async def test_it_is_created_from_the_file(path):
    world = World(path)
    assert await world.put() == Done()
    ((namespace, manifest),) = world.scene.kube.asked("create_secret")
    assert namespace == "jobs"
    assert manifest["metadata"]["name"] == "gcp-key"
    assert manifest["metadata"]["labels"] == OURS
    assert base64.b64decode(manifest["data"]["key.json"]) == CONTENT


@pytest.mark.parametrize("labels", [OURS, {}, None], ids=["ours", "made by hand", "without labels"])
async def test_one_that_says_something_else_is_replaced_and_exactly_that_one(path, labels):
    present = secret(labels, data={"key.json": "b2xk"})
    world = World(path, create_secret=[EXISTS], get_secret=[present])
    assert await world.put() == Done()
    ((namespace, name, manifest),) = world.scene.kube.asked("replace_secret")
    assert (namespace, name) == ("jobs", "gcp-key")
    assert manifest["data"] == {"key.json": ENCODED}
    metadata = manifest["metadata"]
    assert (metadata["uid"], metadata["resourceVersion"]) == ("u-1", "41")
    assert metadata["annotations"] == {"note": "kept"}
    assert metadata["labels"] == OURS


async def test_one_that_says_the_same_is_left_alone(path):
    present = secret(OURS, data={"key.json": ENCODED})
    world = World(path, create_secret=[EXISTS], get_secret=[present])
    assert await world.put() == Done()
    assert world.scene.kube.asked("replace_secret") == []


@pytest.mark.parametrize(
    ("present", "why"),
    [
        (
            secret({**OURS, "kbroker/deployment": "other"}, data={"key.json": "b2xk"}),
            "it belongs to deployment 'other': give the key another name",
        ),
        (
            secret(None, data={"password": "eA==", "user": "eA=="}),
            "a Secret of that name holds other data (password, user): "
            "give the key another name, or delete that Secret",
        ),
    ],
)
async def test_nothing_of_anybody_elses_is_lost(path, present, why, caplog):
    world = World(path, create_secret=[EXISTS], get_secret=[present])
    assert isinstance(await world.put(), Park)
    assert world.scene.kube.asked("replace_secret") == []
    assert caplog.messages == [f"secret jobs/gcp-key waits: {why}"]


@pytest.mark.parametrize(
    "answers",
    [
        {"create_secret": [LOST, EXISTS], "get_secret": [secret(OURS, data={"key.json": ENCODED})]},
        {"create_secret": [EXISTS, b""], "get_secret": [NOT_FOUND]},
        {
            "create_secret": [EXISTS],
            "get_secret": [secret(OURS, data={"key.json": "b2xk"})],
            "replace_secret": [CONFLICT, b""],
        },
        {"create_secret": [error(503, retry_after=1.0), b""]},
    ],
    ids=["lost reply", "deleted in between", "changed in between", "busy"],
)
async def test_what_happens_in_between_does_not_matter(path, answers):
    assert await World(path, **answers).put() == Done()


async def test_a_secret_that_others_keep_changing_waits(path):
    world = World(
        path,
        create_secret=[EXISTS],
        get_secret=[secret(OURS, data={"key.json": "b2xk"})],
        replace_secret=[CONFLICT],
    )
    assert isinstance(await world.put(), Park)
    assert len(world.scene.kube.asked("replace_secret")) == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory; the file must be where launchers run"),
        (b"", "the file is empty"),
        (b"x" * (1024 * 1024 + 1), "the file has over 1 MiB, which no Secret can hold"),
    ],
    ids=["missing", "empty", "too large"],
)
async def test_a_file_that_cannot_be_used_is_named_and_waited_for(path, content, why, caplog):
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    world = World(path)
    outcome = await world.put()
    assert isinstance(outcome, Park)
    assert outcome.item == "secret:jobs/gcp-key"
    assert outcome.event is None
    setting = f"kubernetes.gcp_service_account_keys: gcp-key={path}: {why}"
    assert caplog.messages == [f"secret jobs/gcp-key waits: {setting}"]
    assert world.scene.kube.requests == []


async def test_a_key_that_this_launcher_does_not_have_is_left_to_others(path, caplog):
    world = World(path)
    message = SecretMessage("prod", "default", "jobs", "other")
    assert isinstance(await world.put(message), Park)
    assert "of this launcher does not name it" in caplog.text


@pytest.mark.parametrize(
    ("answer", "said"),
    [(DENIED, 'cannot create resource "secrets"'), (INVALID, "the API server answers 422")],
    ids=["no permission", "invalid"],
)
async def test_a_refusal_is_said_without_the_content(path, answer, said, caplog):
    caplog.set_level(logging.DEBUG)
    outcome = await World(path, create_secret=[answer]).put()
    assert isinstance(outcome, Park)
    assert said in caplog.text
    for hidden in (ENCODED, "hush"):
        assert hidden not in caplog.text
        assert hidden not in repr(outcome)


async def test_a_refused_launcher_leaves_it_on_its_queue_but_a_parked_one_waits_on(path):
    world = World(path, create_secret=[UNAUTHORIZED])
    world.scene.kube.denied = ["refused"] * 50
    assert await world.put() == Leave()
    parked = item(MESSAGE)
    parked = type(parked)("secret:jobs/gcp-key", "", parked.body, parked.raw)
    assert isinstance(world.creation.not_ready(parked, MESSAGE, NOW), Park)


async def test_the_longer_it_waits_the_less_often_it_is_tried(path):
    path.unlink()
    world = World(path)
    outcome, delays = None, []
    for _ in range(12):
        body = item(MESSAGE).payload(outcome.parking) if outcome else item(MESSAGE).raw
        parked = type(item(MESSAGE)).from_parked("secret:jobs/gcp-key", body)
        outcome = await world.creation.put(parked, MESSAGE, NOW)
        delays.append(outcome.delay)
    assert max(delays[:1]) <= world.scene.settings.park_base
    assert delays[-1] >= world.scene.settings.park_max / 2
