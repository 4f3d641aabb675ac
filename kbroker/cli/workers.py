"""`kbroker launcher` and `kbroker watcher`: the worker processes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from kbroker.cli import options, preflight
from kbroker.cli.examples import examples
from kbroker.kube_config import ENV_FILE, ENV_PREFIX, KubeConfig


@examples(
    "kbroker launcher --processes 4",
    "KBROKER__BROKER__URL=redis://redis:6379 kbroker launcher --namespace jobs",
)
def launcher(
    processes: Annotated[int, typer.Option(help="Launcher processes.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Batches at once in a process.", min=1)] = 4,
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
    wait: options.Wait = 0.0,
) -> None:
    """Create and delete pods for executors; start as many as you like, anywhere.

    The same as `dramatiq workers.launcher`. Processes, not threads, add throughput.
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    _require(given, preflight.LAUNCHER_VERBS, wait)
    _become(given, launcher_module(processes, threads))


@examples(
    "kbroker watcher",
    "kbroker watcher --set watcher.lease=5 --namespace jobs",
)
def watcher(
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
    wait: options.Wait = 0.0,
) -> None:
    """Tell executors what happens to their pods; a second one stands by."""
    given = options.configuration(config, settings, kubeconfig, namespace)
    _require(given, preflight.WATCHER_VERBS, wait)
    _become(given, WATCHER_MODULE)


WATCHER_MODULE = ["workers.watcher"]


def launcher_module(processes: int, threads: int) -> list[str]:
    """The module that is a launcher, and its arguments."""
    sizes = ["--processes", str(processes), "--threads", str(threads)]
    # Without a path of its own, dramatiq would import from the present folder first.
    return ["dramatiq", "workers.launcher", *sizes, "--path"]


def command(module: list[str]) -> list[str]:
    """The command that runs a Python module of ours, wherever we are."""
    return [sys.executable, "-P", "-m", *module]


def environment(config: KubeConfig) -> dict[str, str]:
    """The environment that gives a child process this configuration, and no other."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name != ENV_FILE
    }
    return {**kept, **config.as_env()}


def _require(config: KubeConfig, verbs: tuple[str, ...], wait: float) -> None:
    preflight.within(
        wait,
        lambda: preflight.require_redis(config),
        lambda: preflight.require_cluster(config, verbs),
    )


def _become(config: KubeConfig, module: list[str]) -> NoReturn:
    """Become another Python module: signals and exit code are its own."""
    argv = command(module)
    os.execve(argv[0], argv, environment(config))  # noqa: S606 - no shell is meant
