"""The installation's own hook: called with a V1Pod, and never in the way of the identity."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from kubernetes.client import V1Pod

from kbroker.errors import ConfigError, MutationHookError, TemplateError
from kbroker.event import Cause
from kbroker.manifests import Manifests
from kbroker.mutation_hook import MutationHook
from kbroker.settings import KubernetesSettings
from kbroker.work_item import Report
from tests import pod_hooks
from tests.unit.launcher_scene import Scene, item, launch_message, pod

MERGES = ["strategic", "airflow"]


def build(hook: str, merge: str = "strategic", **values: Any) -> dict[str, Any]:
    path = f"tests.pod_hooks.{hook}" if hook else ""
    settings = KubernetesSettings(merge=merge, pod_mutation_hook=path)
    return Manifests(settings).build(launch_message(**values), 1_000_000)


@pytest.mark.parametrize("merge", MERGES)
def test_it_gets_the_finished_pod(merge: str) -> None:
    pod_hooks.SEEN.clear()
    made = build("seen", merge)
    (handed,) = pod_hooks.SEEN
    assert isinstance(handed, V1Pod)
    assert handed.metadata.name == made["metadata"]["name"]
    assert handed.metadata.annotations == made["metadata"]["annotations"]
    (base,) = handed.spec.containers
    assert (base.command or base.args) == ["secret-command"]
    assert made == build("", merge)


@pytest.mark.parametrize("merge", MERGES)
def test_what_it_changes_is_created(merge: str) -> None:
    made = build("everything", merge)
    first, last = made["spec"]["containers"]
    assert first["image"] == "mirror.example.com/busybox:1.37"
    assert {"name": "HOOKED", "value": "1"} in first["env"]
    assert first["resources"] == {"requests": {"cpu": "3"}}
    assert last == {"name": "after", "image": "busybox"}
    assert made["spec"]["nodeSelector"] == {"pool": "tasks"}
    assert made["metadata"]["labels"]["hooked"] == "yes"


@pytest.mark.parametrize("merge", MERGES)
def test_it_cannot_take_over_the_identity(merge: str) -> None:
    made, ours = build("a_thief", merge), build("", merge)
    assert made["metadata"]["labels"].pop("free") == "x"
    assert made["metadata"]["annotations"].pop("free") == "x"
    assert made == ours


@pytest.mark.parametrize("merge", MERGES)
def test_base_need_not_come_first_any_more(merge: str) -> None:
    first, base = build("in_front", merge)["spec"]["containers"]
    assert first == {"name": "first", "image": "x"}
    assert (base.get("command") or base["args"]) == ["secret-command"]


def test_it_is_named_by_dots_or_a_colon() -> None:
    for path in ("tests.pod_hooks.nothing", "tests.pod_hooks:nothing"):
        assert str(MutationHook(path)) == f"kubernetes.pod_mutation_hook {path!r}"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "must be package.module.function"),
        (":nothing", "must be package.module.function"),
        (
            "no.such.module",
            "cannot import 'no.such' (ModuleNotFoundError: No module named 'no'): "
            "is it on the launchers' PYTHONPATH?",
        ),
        ("tests.pod_hooks.absent", "module 'tests.pod_hooks' has no 'absent'"),
        (
            "tests.pod_hooks.NO_FUNCTION",
            "module 'tests.pod_hooks' has something else than a function as 'NO_FUNCTION'",
        ),
    ],
)
def test_a_wrong_path_is_one_line(path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Manifests(KubernetesSettings(pod_mutation_hook=path))
    assert str(caught.value) == f"kubernetes.pod_mutation_hook = {path!r}: {said}"


def test_its_failure_is_said_without_what_the_task_runs() -> None:
    command = ("sh", "-c", "a command with a token in it")
    with pytest.raises(MutationHookError) as caught:
        build("failing", command=command)
    assert str(caught.value) == (
        "kubernetes.pod_mutation_hook 'tests.pod_hooks.failing' failed: ValueError: "
        "no team in sh -c …"
    )


def test_what_it_must_not_leave() -> None:
    with pytest.raises(MutationHookError, match=r"tests.pod_hooks.nonsense' \w+"):
        build("nonsense")
    with pytest.raises(TemplateError, match=r"renamed': has no container"):
        build("renamed")


def test_no_field_is_lost_on_the_way() -> None:
    override = {"spec": {"containers": [{"name": "base", "field": {"of": "tomorrow"}}]}}
    config = {"pod_override": override}
    assert build("", executor_config=config)["spec"]["containers"][0]["field"]
    with pytest.raises(MutationHookError, match=r"does not know pod.spec.containers\[0\].field"):
        build("nothing", executor_config=config)


def test_what_the_clients_models_do_not_take_is_said() -> None:
    override = {"spec": {"containers": [{"name": "base"}, {"image": "no name"}]}}
    with pytest.raises(MutationHookError, match=r"none to the Kubernetes client: .*name"):
        build("nothing", "airflow", executor_config={"pod_override": override})


async def test_a_launch_whose_hook_fails_has_failed() -> None:
    scene = Scene(create=[pod()])
    scene.kubernetes = KubernetesSettings(pod_mutation_hook="tests.pod_hooks.failing")
    scene.creation._manifests = Manifests(scene.kubernetes)
    message = launch_message()
    outcome = await scene.creation.launch(item(message), message, scene.permission())
    assert isinstance(outcome, Report)
    assert outcome.event.cause is Cause.CONFIG_ERROR
    assert outcome.event.message.startswith(
        "kubernetes.pod_mutation_hook 'tests.pod_hooks.failing'"
    )
    assert not scene.kube.requests


def test_a_launcher_with_a_wrong_path_ends_with_one_line() -> None:
    code = "import sys; sys.argv = ['x']; import workers.launcher as l, asyncio; " + (
        "l.or_give_up(lambda: asyncio.run(l.process._check()))"
    )
    env = {
        "KBROKER__BROKER__URL": "redis://127.0.0.1:1",
        "KBROKER__KUBERNETES__POD_MUTATION_HOOK": "no.such.hook",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("launcher: error: kubernetes.pod_mutation_hook = 'no.such.hook': cannot")
