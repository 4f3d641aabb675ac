"""Launchers and watchers as commands: what to run, and with which environment."""

from __future__ import annotations

import os
import sys

from kbroker.kube_config import ENV_FILE, ENV_PREFIX, KubeConfig

WATCHER = ("workers.watcher",)


def launcher(processes: int, threads: int) -> tuple[str, ...]:
    """The module that is a launcher, and its arguments."""
    # Without a path of its own, dramatiq would import from the present folder first.
    sizes = ("--processes", str(processes), "--threads", str(threads), "--path")
    return ("dramatiq", "workers.launcher", *sizes)


def command(module: tuple[str, ...]) -> list[str]:
    """The command that runs a module with its arguments, wherever we are."""
    return [sys.executable, "-P", "-m", *module]


def environment(config: KubeConfig) -> dict[str, str]:
    """The environment that gives a child process this configuration, and no other."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name != ENV_FILE
    }
    return {**kept, **config.as_env()}
