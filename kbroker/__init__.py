"""kbroker: run tasks as Kubernetes pods through a broker.

The public names below are imported on first use, because some need an extra
(`kbroker[kubernetes]`) that a scheduler does not have to install.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kbroker.errors import MissingExtraError

if TYPE_CHECKING:
    from kbroker.executor import KubernetesExecutor
    from kbroker.executor_config import KubernetesExecutorConfig
    from kbroker.kube_config import KubeConfig
    from kbroker.kube_scheduler import AirflowKubernetesScheduler
    from kbroker.task import TaskKey
    from kbroker.watcher import KubernetesJobWatcher

__version__ = "0.1.0"

__all__ = [
    "AirflowKubernetesScheduler",
    "KubeConfig",
    "KubernetesExecutor",
    "KubernetesExecutorConfig",
    "KubernetesJobWatcher",
    "TaskKey",
    "__version__",
]

_HOME = {
    "AirflowKubernetesScheduler": "kbroker.kube_scheduler",
    "KubeConfig": "kbroker.kube_config",
    "KubernetesExecutor": "kbroker.executor",
    "KubernetesExecutorConfig": "kbroker.executor_config",
    "KubernetesJobWatcher": "kbroker.watcher",
    "TaskKey": "kbroker.task",
}
_EXTRA = {"aiohttp", "kubernetes", "msgspec", "tenacity"}


def __getattr__(name: str) -> Any:
    """Import a public class on first use.

    Raises:
        MissingExtraError: the class needs an extra that is not installed.
        AttributeError: there is no such class.
    """
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kbroker' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in _EXTRA:
            raise MissingExtraError(name, "kubernetes") from error
        raise


def __dir__() -> list[str]:
    return __all__
