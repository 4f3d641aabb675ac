"""Pod manifests for launch messages, with the templates read once."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.message import LaunchMessage
from kbroker.pod_spec import build_manifest, load_template
from kbroker.settings import KubernetesSettings


class Manifests:
    """Builds manifests.

    Args:
        settings: the `[kubernetes]` settings.

    Raises:
        TemplateError: the configured template is not usable.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._template = load_template(settings.pod_template_file)

    def build(self, message: LaunchMessage, create_before: int | None) -> dict[str, Any]:
        """The pod to create until `create_before` (ms since the epoch); None for no such limit.

        Raises:
            ExecutorConfigError: the task's overrides are not valid.
            TemplateError: the task's template is not usable.
        """
        overrides = KubernetesExecutorConfig.from_dict(message.executor_config)
        template = self._template
        if overrides.pod_template_file:
            template = _task_template(overrides.pod_template_file)
        return build_manifest(template, self._settings, message, overrides, create_before)


def _task_template(path: str) -> dict[str, Any]:
    """A task's own template; a file that changed is read again."""
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError:
        return load_template(path)  # says what is wrong with it
    return _read(path, changed)


@lru_cache(maxsize=64)
def _read(path: str, _changed: int) -> dict[str, Any]:
    return load_template(path)
