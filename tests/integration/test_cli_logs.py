"""`kbroker logs --through-broker`: a launcher is asked, and what it cannot say is said."""

from __future__ import annotations

import pytest

from kbroker.event import PodState
from kbroker.log_message import LogAnswer
from tests.integration.in_process import Cli, command
from tests.integration.scene import Scene, key
from tests.integration.test_task_log import Launcher


@pytest.fixture
def scene(redis_url: str) -> Scene:
    scene = Scene(redis_url)
    scene.lead()
    return scene


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    logs = command("logs", scene, monkeypatch, capsys)
    return lambda *arguments: logs(*arguments, "--through-broker", "--kubeconfig", "none")


@pytest.fixture(autouse=True)
def _running(scene: Scene) -> None:
    """A task that waits, and one that runs."""
    executor = scene.executor(core__executor_lease=60.0)
    for task in ("waits", "task"):
        executor.execute_async(key(task), ["true"], launch_id=f"l-{task}")
    executor.heartbeat()
    scene.launched(next(m.attempt for m in scene.queued() if m.attempt.launch.key == key("task")))


@pytest.mark.parametrize("name", ["task", "dag.task", "l-task"])
def test_the_log_and_beside_it_what_is_known(scene: Scene, cli: Cli, name: str) -> None:
    answer = LogAnswer(True, "ä\n\x1b[1m", PodState.RUNNING, notes=("cut \x1b[1m",))
    with Launcher(scene, answer.encode()) as launcher:
        told = cli(name)
    assert told == (0, "ä\n\x1b[1m", "kbroker: It is running.\nkbroker: Cut \\x1b[1m.\n")
    assert launcher.request is not None
    assert launcher.request.lines == 100


def test_as_many_lines_as_are_asked_for(scene: Scene, cli: Cli) -> None:
    with Launcher(scene, LogAnswer(True, "x", PodState.RUNNING).encode()) as launcher:
        assert cli("task", "--tail", "7")[0] == 0
    assert launcher.request is not None
    assert launcher.request.lines == 7


def test_without_a_log_it_says_why(cli: Cli) -> None:
    code, out, err = cli("waits")
    assert (code, out) == (1, "")
    assert err.startswith("kbroker: No launcher is running for queue ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nobody"], 1, "no task 'nobody' is recorded; see: kbroker ps"),
        (["task", "-f"], 2, "--through-broker shows the end of the log of container base only"),
        (["task", "--container", "x"], 2, "--through-broker shows the end of the log of container"),
        (["task", "--tail", "0"], 2, "--tail 0: must be from 1 to 10000 with --through-broker"),
        (["task", "--tail", "10001"], 2, "--tail 10001: must be from 1 to 10000"),
    ],
)
def test_what_cannot_be_asked_for(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    told = cli(*arguments)
    assert told[:2] == (code, "")
    assert told[2].startswith(f"kbroker: error: {words}")
    assert told[2].count("\n") == 1
