"""Launchers and watchers as commands: what to run, and with which environment."""

from __future__ import annotations

import os
import sys

from kbroker.kube_config import ENV_FILE, ENV_PREFIX, KubeConfig

WATCHER = ("workers.watcher",)
# Milliseconds. Dramatiq's main process waits so long for a worker process to boot, even for
# one that was killed meanwhile, and only then sees that it is dead. Its default is 30 s.
_BOOT_WITHIN = 3000


def launcher(processes: int, threads: int, stop_within: float = 30.0) -> tuple[str, ...]:
    """The module that is a launcher, and its arguments.

    Args:
        processes: launcher processes.
        threads: batches at once in each of them.
        stop_within: seconds that it may take to finish its work once it is told to stop;
            without Redis it cannot, and what is left goes to another launcher.
    """
    options = {
        "--processes": processes,
        "--threads": threads,
        "--worker-shutdown-timeout": int(stop_within * 1000),
        "--worker-fork-timeout": _BOOT_WITHIN,
    }
    given = [word for name, value in options.items() for word in (name, str(value))]
    # Without a path of its own, dramatiq would import from the present folder first.
    return ("dramatiq", "workers.launcher", *given, "--path")


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
