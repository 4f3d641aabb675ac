"""Pod manifests for launch messages, with the templates read once."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import orjson

from kbroker.executor_config import KubernetesExecutorConfig
from kbroker.message import LaunchMessage
from kbroker.mutation_hook import MutationHook
from kbroker.pod_blueprint import PodBlueprint
from kbroker.pod_spec import blueprint, finished, load_template
from kbroker.settings import KubernetesSettings

_KINDS = 256  # of tasks, told apart by their overrides


class Manifests:
    """Builds manifests.

    Args:
        settings: the `[kubernetes]` settings.

    Raises:
        TemplateError: the configured template is not usable.
        ConfigError: the configured pod_mutation_hook cannot be imported.
        MissingExtraError: there is one, and no Kubernetes client.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._template = load_template(settings.pod_template_file, settings.merge)
        path = settings.pod_mutation_hook
        self._hook = MutationHook(path) if path else None
        # By content, so that what is kept can never be stale.
        self._blueprint = lru_cache(_KINDS)(self._drawn)

    def build(self, message: LaunchMessage, create_before: int | None) -> dict[str, Any]:
        """The same as `body`, as a dict of its own that the caller may change."""
        manifest: dict[str, Any] = orjson.loads(self.body(message, create_before))
        return manifest

    def body(self, message: LaunchMessage, create_before: int | None) -> bytes:
        """The pod to create until `create_before` (ms since the epoch), as JSON; None: no limit.

        Raises:
            ExecutorConfigError: the task's overrides are not valid.
            TemplateError: the task's template is not usable.
            MutationHookError: the pod_mutation_hook failed, or left no pod.
        """
        stated = orjson.dumps(message.executor_config)
        template = _overrides(stated).pod_template_file
        drawn = self._blueprint(stated, _changed(template) if template else 0)
        body = drawn.body(message, create_before)
        if self._hook is None:
            return body
        pod = self._hook.changed(orjson.loads(body), message.command)
        # Whatever it did to the identity is undone.
        return finished(pod, self._settings, str(self._hook)).body(message, create_before)

    def _drawn(self, stated: bytes, _changed: int) -> PodBlueprint:
        overrides = _overrides(stated)
        path = overrides.pod_template_file
        template = load_template(path, self._settings.merge) if path else self._template
        return blueprint(template, self._settings, overrides)


@lru_cache(_KINDS)
def _overrides(stated: bytes) -> KubernetesExecutorConfig:
    return KubernetesExecutorConfig.from_dict(orjson.loads(stated))


def _changed(path: str) -> int:
    """When a task's own template was written; it is read again when that changes."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1  # to read it says what is wrong with it
