"""`kbroker launcher` and `kbroker watcher`: the worker processes."""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

import typer

from kbroker.cli import options, preflight
from kbroker.cli.examples import examples
from kbroker.kube_config import KubeConfig
from kbroker.local import worker_process


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

    Exit code: 0 after SIGTERM or SIGINT, 1 when Redis or the cluster cannot be used, 2 for
    a wrong command line.
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    _require(given, preflight.LAUNCHER_VERBS, wait)
    _become(given, worker_process.launcher(processes, threads))


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
    """Tell executors what happens to their pods; a second one stands by.

    Exit code: 0 after SIGTERM or SIGINT, 1 when Redis or the cluster cannot be used, 2 for
    a wrong command line.
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    _require(given, preflight.WATCHER_VERBS, wait)
    _become(given, worker_process.WATCHER)


def _require(config: KubeConfig, verbs: tuple[str, ...], wait: float) -> None:
    preflight.within(
        wait,
        lambda: preflight.require_redis(config),
        lambda: preflight.require_cluster(config, verbs),
    )


def _become(config: KubeConfig, module: tuple[str, ...]) -> NoReturn:
    """Become another Python module: signals and exit code are its own."""
    argv = worker_process.command(module)
    os.execve(argv[0], argv, worker_process.environment(config))  # noqa: S606 - no shell is meant
