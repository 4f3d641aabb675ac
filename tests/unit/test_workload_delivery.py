"""A workload put into the pod's own Secret: what is asked of the API server, and what follows."""

from __future__ import annotations

import base64
import logging
from typing import Any

import orjson
import pytest

from kbroker.event import Cause, PodState
from kbroker.launch_reply import Refused
from kbroker.manifests import Manifests
from kbroker.message import LaunchMessage
from kbroker.naming import WAITS
from kbroker.settings import KubernetesSettings
from kbroker.work_item import Done, Leave, Outcome, Park, Report
from kbroker.workload_file import FOLDER, KEY, WORKLOAD_FILE
from tests.unit.launcher_scene import (
    EXISTS,
    LOST,
    NAME,
    NOT_FOUND,
    NOW,
    UNAUTHORIZED,
    Answer,
    Scene,
    error,
    item,
    launch_message,
    pod,
)

WORKLOAD = '{"token": "hush-hush"}'
ENCODED = base64.b64encode(WORKLOAD.encode()).decode()
MESSAGE = launch_message(workload=WORKLOAD)
TAKEN = error(409, f'secrets "{NAME}" already exists', "AlreadyExists")
DENIED = error(
    403,
    'secrets is forbidden: User "x" cannot create resource "secrets" in API group "" in the '
    'namespace "default"',
    "Forbidden",
)
# A refusal may quote what was sent.
INVALID = error(422, f"Secret is invalid: data: {ENCODED} {WORKLOAD}", "Invalid")
FULL = error(403, 'secrets "x" is forbidden: exceeded quota: q, requested: secrets=1', "Forbidden")
RUNS = pod(phase="Running", node="n", container={"running": {"startedAt": "2026-11-23T06:00:00Z"}})
WHY = "its workload cannot be put into a Secret: "


class World:
    def __init__(self, message: LaunchMessage = MESSAGE, **answers: list[Answer]) -> None:
        given: dict[str, list[Answer]] = {
            "create": [pod()],
            "get": [pod()],
            "create_secret": [b""],
            "replace_secret": [b""],
            "patch": [b""],
            **answers,
        }
        self.message = message
        self.scene = Scene(**given)

    async def launch(self, refused: str = "", **values: Any) -> Outcome:
        permission = Refused(refused, NOW + 30_000, NOW) if refused else self.scene.permission()
        work = item(self.message, **values)
        return await self.scene.creation.launch(work, self.message, permission)

    @property
    def kinds(self) -> list[str]:
        return self.scene.kube.kinds()


async def test_the_pod_comes_first_and_owns_the_secret() -> None:
    world = World()
    outcome = await world.launch()
    assert isinstance(outcome, Report)
    assert (outcome.event.state, outcome.event.uid) == (PodState.PENDING, "uid-1")
    assert world.kinds == ["create", "create_secret"]
    ((namespace, secret),) = world.scene.kube.asked("create_secret")
    assert namespace == secret["metadata"]["namespace"] == "default"
    assert secret["metadata"]["name"] == NAME
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": NAME, "uid": "uid-1"}
    ]
    assert base64.b64decode(secret["data"][KEY]).decode() == WORKLOAD
    assert secret["metadata"]["labels"]["kbroker/deployment"] == "prod"


async def test_a_launch_without_workload_asks_for_no_secret() -> None:
    world = World(launch_message())
    assert isinstance(await world.launch(), Report)
    assert isinstance(await world.launch("launched"), Done)
    assert world.kinds == ["create"]


@pytest.mark.parametrize(
    ("answers", "kinds"),
    [
        (
            {"create": [EXISTS], "create_secret": [TAKEN]},
            ["create", "get", "create_secret", "replace_secret"],
        ),
        ({"create": [EXISTS]}, ["create", "get", "create_secret"]),
        (
            {"create_secret": [LOST, TAKEN]},
            ["create", "create_secret", "create_secret", "replace_secret"],
        ),
        (
            {"create_secret": [TAKEN, b""], "replace_secret": [NOT_FOUND]},
            ["create", "create_secret", "replace_secret", "create_secret"],
        ),
        ({"create_secret": [error(503), b""]}, ["create", "create_secret", "create_secret"]),
    ],
    ids=["both are there", "only the pod", "a reply was lost", "gone in between", "busy"],
)
async def test_whoever_tried_before(answers: dict[str, Any], kinds: list[str]) -> None:
    world = World(**answers)
    assert isinstance(await world.launch(), Report)
    assert world.kinds == kinds


async def test_a_replaced_secret_belongs_to_the_present_pod() -> None:
    world = World(create_secret=[TAKEN])
    await world.launch()
    ((_, name, secret),) = world.scene.kube.asked("replace_secret")
    assert name == NAME
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


async def test_a_known_pod_that_a_killed_launcher_left_without_its_workload() -> None:
    world = World()
    assert isinstance(await world.launch("launched", deliveries=2), Report)
    assert world.kinds == ["get", "create_secret"]


@pytest.mark.parametrize(
    ("found", "secrets"), [(NOT_FOUND, 0), (pod(None), 0), (RUNS, 0), (pod(), 1)]
)
async def test_a_known_pod_that_needs_none(found: Any, secrets: int) -> None:
    world = World(get=[found])
    await world.launch("launched")
    assert len(world.scene.kube.asked("create_secret")) == secrets


@pytest.mark.parametrize("why", ["final", "withdrawn", "attempt", "absent", "dead"])
async def test_any_other_refusal_ends_it(why: str) -> None:
    world = World()
    assert isinstance(await world.launch(why), Done)
    assert world.kinds == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (DENIED, 'cannot create resource "secrets"'),
        (INVALID, f"{WHY}the API server answers 422"),
        (error(404, 'namespaces "x" not found'), 'namespaces "x" not found'),
    ],
    ids=["no permission", "invalid", "no namespace"],
)
async def test_what_is_refused_for_good_has_the_pod_stopped(
    answer: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outcome = await World(create_secret=[answer]).launch()
    assert isinstance(outcome, Report)
    assert outcome.event.state is PodState.PENDING
    assert outcome.verdict is not None
    cause, message = outcome.verdict
    assert cause is Cause.ADMISSION
    assert said in message
    assert message.startswith(WHY)
    for hidden in (ENCODED, "hush"):
        assert hidden not in caplog.text
        assert hidden not in repr(outcome)


async def test_the_missing_permission_is_named() -> None:
    outcome = await World(create_secret=[DENIED]).launch()
    assert isinstance(outcome, Report)
    assert outcome.verdict is not None
    assert "launchers need config/kubernetes/launcher-workloads.yaml" in outcome.verdict[1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [(error(503, f"quoting {WORKLOAD}"), "answers 503"), (FULL, "exceeded quota: q")],
    ids=["busy", "full"],
)
async def test_what_may_succeed_later_is_parked_and_the_pod_says_why(
    answer: Any, said: str
) -> None:
    world = World(create_secret=[answer])
    outcome = await world.launch()
    assert isinstance(outcome, Park)
    assert outcome.parking.maybe_until  # the next one looks for the pod
    assert outcome.no_room is None
    assert outcome.event is not None
    (patch,) = world.scene.kube.asked("patch")
    assert patch["metadata"]["uid"] == "uid-1"
    why = patch["metadata"]["annotations"][WAITS]
    assert why.startswith(WHY)
    for text in (why, str(outcome.event.message)):
        assert said in text
        assert "hush" not in text


async def test_an_api_server_that_is_away_is_not_asked_to_say_so() -> None:
    world = World(create_secret=[LOST])
    assert isinstance(await world.launch(), Park)
    assert "patch" not in world.kinds


async def test_a_refused_launcher_forgets_no_pod() -> None:
    world = World(create_secret=[UNAUTHORIZED])
    world.scene.kube.denied = ["refused"] * 50
    assert isinstance(await world.launch(), Park)
    world = World(create=[UNAUTHORIZED])
    world.scene.kube.denied = ["refused"] * 50
    assert isinstance(await world.launch(), Leave)


async def test_a_pod_that_cannot_be_looked_at_is_looked_at_later() -> None:
    world = World(get=[LOST])
    outcome = await world.launch("launched")
    assert isinstance(outcome, Park)
    assert item(MESSAGE).has_workload
    assert not item(launch_message()).has_workload


@pytest.mark.parametrize("merge", ["strategic", "airflow"])
@pytest.mark.parametrize("hook", ["", "tests.pod_hooks.nothing"])
def test_the_base_container_alone_has_it(merge: str, hook: str) -> None:
    theirs = {
        "volumes": [
            {"name": "kbroker-workload", "emptyDir": {}},
            {"name": "data", "emptyDir": {}},
        ],
        "containers": [
            {
                "name": "base",
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "data", "mountPath": FOLDER},
                ],
            },
            {"name": "side", "image": "x"},
        ],
    }
    config = {"pod_override": {"spec": theirs}}
    settings = KubernetesSettings(merge=merge, pod_mutation_hook=hook)
    made = Manifests(settings).build(MESSAGE.changed(executor_config=config), NOW)
    assert b"hush" not in orjson.dumps(made)
    base = next(each for each in made["spec"]["containers"] if each["name"] == "base")
    side = next(each for each in made["spec"]["containers"] if each["name"] == "side")
    assert base["volumeMounts"] == [
        {"name": "data", "mountPath": "/data"},
        {"name": "kbroker-workload", "mountPath": "/var/run/kbroker", "readOnly": True},
    ]
    assert "volumeMounts" not in side
    assert made["spec"]["volumes"] == [
        {"name": "data", "emptyDir": {}},
        {"name": "kbroker-workload", "secret": {"secretName": NAME}},
    ]
    without = MESSAGE.changed(executor_config=config, workload=None)
    made = Manifests(settings).build(without, NOW)
    base = next(each for each in made["spec"]["containers"] if each["name"] == "base")
    assert base["volumeMounts"] == theirs["containers"][0]["volumeMounts"]
    assert made["spec"]["volumes"] == theirs["volumes"]


def test_where_the_command_finds_it() -> None:
    assert WORKLOAD_FILE == "/var/run/kbroker/workload.json"
