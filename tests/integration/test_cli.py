"""The command line as its users run it: real processes, exit codes, what is printed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.local.cluster_process import LocalCluster
from tests.integration.scene import poll

ROOT = Path(__file__).resolve().parents[2]
OK = '{"id": "hello", "command": ["sh", "-c", "echo hello from the pod"]}\n'


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KBROKER", "KUBE"))}
    return {**plain, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **more}


def kbroker(
    *arguments: str, folder: Path, given: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kbroker", *arguments],
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(**env),
        timeout=90,
        check=False,
    )


def children_of(folder: Path) -> list[str]:
    """Processes whose command line, environment or folder names this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            where = os.readlink(process / "cwd")
        except OSError:
            continue
        if int(process.name) != os.getpid() and (
            str(folder).encode() in text or where.startswith(str(folder))
        ):
            found.append(f"{process.name} {text[:200]!r}")
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


def test_help_has_examples_everywhere(tmp_path: Path) -> None:
    commands = ["demo", "run", "ps", "logs", "launcher", "watcher"]
    commands += ["local up", "local down", "local status"]
    for command in ["", *commands]:
        done = kbroker(*command.split(), "--help", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Examples:" in done.stdout, command
    assert re.fullmatch(r"kbroker \d+\.\d+\.\d+\n", kbroker("--version", folder=tmp_path).stdout)


@pytest.mark.parametrize(
    ("name", "arguments", "given", "code", "said"),
    [
        ("no file", ["run", "none.jsonl", "--local"], "", 2, "none.jsonl: cannot be read"),
        ("bad line", ["run", "-", "--local"], OK + "{", 2, "standard input:2: is not JSON"),
        ("unknown field", ["run", "-", "--local"], '{"id":"a","command":["a"],"imgae":"b"}', 2,
         "did you mean 'image'?"),
        ("unknown setting", ["run", "-", "--local", "--set", "core.paralelism=1"], OK, 2,
         "did you mean 'parallelism'?"),
        ("wrong type", ["ps", "--set", "core.parallelism=x"], "", 2, "must be a whole number"),
        ("no equals sign", ["ps", "--set", "core"], "", 2, "must be section.key=value"),
        ("no config file", ["ps", "--config", "none.toml"], "", 2, "none.toml: cannot be read"),
        ("no Redis configured", ["run", "-"], OK, 2, "no Redis is configured"),
        ("no Redis there", ["ps", "--set", "broker.url=redis://127.0.0.1:1/0"], "", 1,
         "no Redis at redis://127.0.0.1:1/0"),
        ("not a Redis URL", ["ps", "--set", "broker.url=http://x"], "", 2, "not a Redis URL"),
        ("no cluster", ["logs", "x", "--kubeconfig", "none"], "", 1, "no Kubernetes cluster from none"),
        ("demo without its file", ["demo", "--tasks", "none"], "", 2, "none: cannot be read"),
        ("unknown option", ["run", "x", "--bogus"], "", 2, "No such option: --bogus; see: kbroker run --help"),
        ("no argument", ["run"], "", 2, "Missing argument 'TASKS'"),
        ("unknown command", ["rum"], "", 2, "No such command 'rum'"),
        ("out of range", ["run", "-", "--max-parallel", "0"], OK, 2, "'--max-parallel'"),
        ("empty run id", ["run", "-", "--local", "--run-id", ""], OK, 2, "--run-id must not be empty"),
        ("two Redises", ["run", "-", "--local", "--set", "broker.url=redis://h"], OK, 2,
         "--local starts a Redis of its own"),
        ("no cluster to run on", ["run", "-", "--local", "--kubeconfig", "none"], OK, 1,
         "no Kubernetes cluster from none"),
        ("nothing is up", ["local", "down"], "", 1, "nothing is up"),
        ("nothing is up", ["local", "status"], "", 1, "nothing is up"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_starts_nothing(
    tmp_path: Path, name: str, arguments: list[str], given: str, code: int, said: str
) -> None:
    done = kbroker(*arguments, folder=tmp_path, given=given)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("kbroker: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    assert children_of(tmp_path) == []
    assert not (tmp_path / ".kbroker").exists()


@pytest.mark.parametrize(
    ("worker", "fault", "code", "said"),
    [
        ("watcher", "token", 1, "refuses the credentials"),
        ("watcher", "namespace", 1, "namespace 'nowhere' does not exist"),
        ("watcher", "deny", 1, "no permission to watch pods in namespace 'default'"),
        ("launcher", "deny", 1, "no permission to create pods in namespace 'default'"),
        ("launcher", "kubeconfig", 1, "no Kubernetes cluster from"),
    ],
)
def test_a_worker_that_cannot_work_says_why_in_one_line(
    tmp_path: Path,
    redis_url: str,
    cluster: LocalCluster,
    worker: str,
    fault: str,
    code: int,
    said: str,
) -> None:
    content = json.loads(cluster.kubeconfig.read_text())
    user = content["users"][0]["user"]
    arguments = [worker]
    if fault == "token":
        user["token"] = "wrong"
    elif fault == "deny":
        deny = [{"verb": "watch" if worker == "watcher" else "create", "resource": "pods"}]
        made = cluster.admin.post("/_local/tokens", {"user": "jane", "deny": deny})
        user["token"] = made["token"]
    elif fault == "namespace":
        arguments += ["--namespace", "nowhere"]
    kubeconfig = tmp_path / "kubeconfig"
    if fault != "kubeconfig":
        kubeconfig.write_text(json.dumps(content))
    done = kbroker(
        *arguments,
        folder=tmp_path,
        KBROKER__BROKER__URL=redis_url,
        KBROKER__KUBERNETES__KUBECONFIG=str(kubeconfig),
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("kbroker: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_run_locally_and_print_json(tmp_path: Path) -> None:
    lines = [
        json.loads(OK),
        {"id": "fails", "command": ["sh", "-c", "exit 3"], "expect": {"state": "failed"}},
    ]
    given = "\n".join(json.dumps(line) for line in lines)
    done = kbroker(
        "run", "-", "--local", "--launchers", "1", "--json", folder=tmp_path, given=given
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"] == {"success": 1, "failed": 1}
    hello, fails = document["tasks"]
    assert Path(hello["log"]).read_text() == "hello from the pod\n"
    assert (hello["state"], hello["exit_code"], hello["attempts"]) == ("success", 0, 1)
    assert (fails["state"], fails["cause"], fails["exit_code"]) == ("failed", "error", 3)
    assert all(task["run_seconds"] is not None for task in document["tasks"])
    assert "2/2 done" in done.stderr  # plain lines where there is no terminal
    assert children_of(tmp_path) == []


def test_an_unexpected_end_is_exit_code_1(tmp_path: Path) -> None:
    task = '{"id": "fails", "command": ["false"]}'
    done = kbroker("run", "-", "--local", "--launchers", "1", folder=tmp_path, given=task)
    assert done.returncode == 1
    assert re.search(r"^fails +failed\* +error +1 ", done.stdout, re.MULTILINE)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kbroker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(),
    )


def slow_tasks(folder: Path, seconds: float) -> Path:
    """Two tasks that leave a mark when they begin and when they end."""
    path = folder / "slow.jsonl"
    command = f"touch {folder}/begun-$0; sleep {seconds}; touch {folder}/ended-$0"
    lines = [{"id": n, "command": ["sh", "-c", command, n]} for n in ("a", "b")]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_ctrl_c_once_waits_for_what_runs(tmp_path: Path) -> None:
    path = slow_tasks(tmp_path, 2)
    arguments = ("run", str(path), "--local", "--launchers", "1", "--max-parallel", "1")
    process = started(tmp_path, *arguments)
    poll("the first task runs", lambda: list(tmp_path.glob("begun-*")), 30)
    time.sleep(0.3)  # the executor hears that it runs
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nothing more is launched" in err
    assert len(list(tmp_path.glob("ended-*"))) == 1
    assert len(list(tmp_path.glob("begun-*"))) == 1
    assert re.search(r" cancelled ", out)
    assert children_of(tmp_path) == []


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_ctrl_c_twice_cancels_the_pods(
    tmp_path: Path, signals: tuple[signal.Signals, ...], code: int
) -> None:
    process = started(tmp_path, "run", str(slow_tasks(tmp_path, 60)), "--local", "--launchers", "1")
    poll("both tasks run", lambda: len(list(tmp_path.glob("begun-*"))) == 2, 30)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)  # two signals of one kind at once are one
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert list(tmp_path.glob("ended-*")) == []
    assert len(re.findall(r" cancelled ", out)) == 2
    assert children_of(tmp_path) == []


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    process = started(tmp_path, "run", str(slow_tasks(tmp_path, 60)), "--local", "--launchers", "1")
    poll("both tasks run", lambda: len(list(tmp_path.glob("begun-*"))) == 2, 30)
    process.kill()
    process.communicate(timeout=10)
    poll("all is gone", lambda: not children_of(tmp_path), 30)


def test_local_up_status_ps_logs_down(tmp_path: Path) -> None:
    up = kbroker("local", "up", folder=tmp_path)
    try:
        assert up.returncode == 0, up.stderr
        exported = dict(re.findall(r"^export (\w+)=(.+)$", up.stdout, re.MULTILINE))
        assert set(exported) == {"KBROKER__BROKER__URL", "KUBECONFIG"}
        again = kbroker("local", "up", folder=tmp_path)
        assert (again.returncode, "already up" in again.stderr) == (2, True)
        state = json.loads(kbroker("local", "status", "--json", folder=tmp_path).stdout)
        assert state["redis_url"] == exported["KBROKER__BROKER__URL"]
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "kbroker", worker],
                cwd=tmp_path,
                env=environment(**exported),
                stderr=subprocess.DEVNULL,
            )
            for worker in ("launcher", "watcher")
        ]
        tasks = tmp_path / "tasks.jsonl"
        tasks.write_text(
            '{"id": "talks", "command": ["sh", "-c", "echo first; sleep 8; echo last"]}'
        )
        run = subprocess.Popen(
            [sys.executable, "-m", "kbroker", "run", str(tasks)],
            cwd=tmp_path,
            env=environment(**exported),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listed() -> list[dict[str, str]]:
            return json.loads(kbroker("ps", "--json", folder=tmp_path, **exported).stdout)

        poll("it runs", lambda: [v for v in listed() if v["state"] == "running"], 30)
        assert "tasks.talks" in kbroker("ps", folder=tmp_path, **exported).stdout
        log = kbroker("logs", "talks", "-f", folder=tmp_path, **exported)
        assert log.stdout == "first\nlast\n", log.stderr
        assert run.wait(30) == 0
        gone = kbroker("logs", "nobody", folder=tmp_path, **exported)
        assert (gone.returncode, "no pod 'nobody'" in gone.stderr) == (1, True)
        for worker in workers:
            worker.terminate()
            worker.wait(20)
    finally:
        down = kbroker("local", "down", folder=tmp_path)
    assert (down.returncode, down.stderr) == (0, "stopped\n")
    assert children_of(tmp_path) == []
