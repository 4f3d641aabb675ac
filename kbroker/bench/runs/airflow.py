"""Airflow's own executor and kbroker's, in Airflow and alone, by turns in a played cluster."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from kbroker.bench import airflow_contender, tasks
from kbroker.bench.bench import Bench, Measured
from kbroker.bench.cpu import cpu_seconds
from kbroker.bench.helper import BenchError
from kbroker.bench.samples import median
from kbroker.bench.site import Site
from kbroker.bench.stack import Shape, Stack
from kbroker.errors import UsageError
from kbroker.kube_config import as_text

# They have no bars: they are what kbroker is compared with.
FIGURES: tuple[str, ...] = ()
_AIRFLOWS = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
_OURS = "kbroker.airflow.KBrokerExecutor"
_RUNS_FOR = 0.5
_WITHIN = 400.0
_TIMES = 2
_HOME = "airflow-home"
# Its defaults, one pod a turn, would be slower still.
_WAYS = {
    "airflow_sequential": {"WORKER_PODS_CREATION_BATCH_SIZE": "100"},
    "airflow_asynchronous": {
        "WORKER_PODS_CREATION_BATCH_SIZE": "200",
        "ASYNC_POD_CREATION": "True",
        "POD_CREATION_MAX_CONCURRENCY": "64",
    },
}


def require_airflow(python: str) -> None:
    """See that an interpreter has Airflow.

    Raises:
        UsageError: it has not, or there is none.
    """
    with tempfile.TemporaryDirectory(prefix="kbroker-airflow-") as home:
        try:
            done = subprocess.run(
                [python, "-c", f"import kbroker.airflow, {_AIRFLOWS.rpartition('.')[0]}"],
                env=_environment(Path(home)),
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"--airflow-python {python}: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UsageError(
            f"--airflow-python {python}: it cannot use Airflow's KubernetesExecutor and kbroker's "
            f"({said[-1] if said else done.returncode}): "
            "pip install 'kbroker[airflow]' apache-airflow-providers-cncf-kubernetes there"
        )


def measure(bench: Bench) -> Measured:
    """Run tasks from their submission to their reported ends, by turns."""
    count, folder = bench.sizes.beside, bench.folder / "airflow"
    each: dict[str, list[float]] = {}
    with (
        bench.sites.site("airflow", _RUNS_FOR) as site,
        Stack(site, folder, Shape(run=True), bench.pids) as stack,
    ):
        _migrate(bench.airflow, folder)
        ours = {
            name: as_text(value)
            for name, value in (
                ("BROKER_URL", stack.config.broker.url),
                ("BROKER_PREFIX", stack.config.broker.prefix),
                ("DEPLOYMENT", stack.config.core.deployment),
                ("NAMESPACE", site.namespace),
            )
        }
        for number in range(min(bench.sizes.rounds, _TIMES)):
            for way, settings in _WAYS.items():
                given = _of_airflow(site, folder, settings)
                said = _driven(bench.airflow, _AIRFLOWS, folder, given, count)
                _note(each, way, said, count)
                bench.say(f"airflow: {way}: {count / said['ended_s']:.0f} tasks/s")
            said = _driven(bench.airflow, _OURS, folder, _section("KBROKER", ours), count)
            _note(each, "airflow_kbroker", said, count)
            bench.say(f"airflow: kbroker in Airflow: {count / said['ended_s']:.0f} tasks/s")
            said = _kbroker(stack, f"beside-{number}", count)
            _note(each, "beside_airflow", said, count)
            bench.say(f"airflow: kbroker: {count / said['ended_s']:.0f} tasks/s")
    return Measured(notes={name: median(values) for name, values in each.items()})


def _note(each: dict[str, list[float]], who: str, said: dict[str, Any], count: int) -> None:
    noted = {
        "launched_per_s": count / said["launched_s"],
        "ended_per_s": count / said["ended_s"],
        "scheduler_cpu_ms": 1000 * said["cpu_s"] / count,
        "longest_turn_ms": 1000 * said["longest_turn_s"],
        "median_turn_ms": 1000 * said["median_turn_s"],
    }
    for name, value in noted.items():
        each.setdefault(f"{who}_{name}", []).append(value)


def _of_airflow(site: Site, folder: Path, settings: dict[str, str]) -> dict[str, str]:
    """Where Airflow's own executor finds the cluster, and what it creates there."""
    template = folder / "template-airflow.yaml"
    template.write_bytes(orjson.dumps({**tasks.template(None), "metadata": {"name": "bench"}}))
    given = {
        "IN_CLUSTER": "False",
        "CONFIG_FILE": str(site.kubeconfig),
        "NAMESPACE": site.namespace,
        "POD_TEMPLATE_FILE": str(template),
        **settings,
    }
    return _section("KUBERNETES_EXECUTOR", given)


def _section(section: str, given: dict[str, str]) -> dict[str, str]:
    return {f"AIRFLOW__{section}__{name}": value for name, value in given.items()}


def _driven(
    python: str, executor: str, folder: Path, more: dict[str, str], count: int
) -> dict[str, Any]:
    """Let an executor of Airflow's run so many tasks.

    Raises:
        BenchError: it did not.
    """
    said = _ran([python, str(airflow_contender.__file__), executor, str(count)], folder, more)
    result: dict[str, Any] = orjson.loads(said.strip().splitlines()[-1])
    if result["succeeded"] != count:
        raise BenchError(f"{result['succeeded']} of Airflow's {count} tasks succeeded")
    return result


def _migrate(python: str, folder: Path) -> None:
    """Make the database in which the executor looks up how tasks ended; raises likewise."""
    _ran([python, "-m", "airflow", "db", "migrate"], folder, {})


def _ran(command: list[str], folder: Path, more: dict[str, str]) -> str:
    """What a command of Airflow's prints; raises likewise."""
    try:
        done = subprocess.run(
            command,
            env={**_environment(folder / _HOME), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=_WITHIN,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"Airflow did not end within {_WITHIN:g} s") from None
    with (folder / "airflow.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise BenchError(f"Airflow failed: {said[-1] if said else done.returncode}")
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    """Of Airflow: nothing of ours, and nothing that it writes outside of a folder of the bench."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "KBROKER", "PYTHON", "KUBE"))
    }
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PARALLELISM": "1000000",
        # Its lines about each task would cost as much as some of its work.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _kbroker(stack: Stack, group: str, count: int) -> dict[str, Any]:
    """The same of kbroker."""
    stack.until_over()
    stack.noted()
    cpu = cpu_seconds(stack.scheduler.pid)
    began = stack.submit(group, count)
    launched: list[float] = []
    ends: dict[str, float] = {}
    beats: list[float] = []

    def over() -> bool:
        if not launched and not stack.queued():
            launched.append(time.monotonic())
        noted = stack.noted()
        beats.extend(noted["beats"])
        ends.update({task: at for task, state, at in noted["states"] if state == "success"})
        return len(ends) >= count

    stack.until(f"{count} tasks have ended", over, _WITHIN)
    return {
        "launched_s": launched[0] - began,
        "ended_s": max(ends.values()) - began,
        "cpu_s": cpu_seconds(stack.scheduler.pid) - cpu,
        "longest_turn_s": max(beats),
        "median_turn_s": median(beats),
    }
