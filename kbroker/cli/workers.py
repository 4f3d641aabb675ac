"""`kbroker launcher` and `kbroker watcher`: the worker processes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from kbroker.cli import options
from kbroker.kube_config import KubeConfig


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

    Examples:
      kbroker launcher --processes 4

      KBROKER__BROKER__URL=redis://redis:6379 kbroker launcher --namespace jobs
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    options.wait_for(given, wait)
    _become(
        given,
        *("dramatiq", "workers.launcher"),
        *("--processes", str(processes), "--threads", str(threads)),
    )


def watcher(
    config: options.ConfigFile = None,
    settings: options.Settings = None,
    kubeconfig: options.Kubeconfig = None,
    namespace: options.Namespace = None,
    wait: options.Wait = 0.0,
) -> None:
    """Tell executors what happens to their pods; a second one stands by.

    Examples:
      kbroker watcher

      kbroker watcher --set watcher.lease=5 --namespace jobs
    """
    given = options.configuration(config, settings, kubeconfig, namespace)
    options.wait_for(given, wait)
    _become(given, "workers.watcher")


def _become(config: KubeConfig, *module: str) -> NoReturn:
    """Become another Python module: signals and exit code are its own."""
    os.environ.update(config.as_env())
    os.execv(sys.executable, [sys.executable, "-m", *module])  # noqa: S606 - no shell is meant
