"""From template, configuration and overrides to the manifest of an attempt's pod.

Later wins: template ← configuration ← per-task keys ← `pod_override` ← identity.
The identity — name, namespace, kbroker's labels and annotations, the base
container's command — is what the rest of kbroker finds its pods by.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import yaml

from kbroker.airflow_merge import airflow_merge
from kbroker.errors import ExecutorConfigError, TemplateError
from kbroker.executor_config import BASE_CONTAINER, KubernetesExecutorConfig
from kbroker.message import LaunchMessage
from kbroker.pod_blueprint import PodBlueprint
from kbroker.pod_shape import ShapeError, check_pod, plain_json
from kbroker.settings import KubernetesSettings
from kbroker.strategic_merge import strategic_merge

# The same as config/pod_template.yaml, for an installation without files.
DEFAULT_TEMPLATE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "restartPolicy": "Never",
        "containers": [{"name": BASE_CONTAINER, "image": "busybox:1.37"}],
    },
}
_MERGES = {"strategic": strategic_merge, "airflow": airflow_merge}
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Set by the API server, and refused or ignored in a create: what a template that was
# saved with `kubectl get pod -o yaml` has too many.
_SERVER_FIELDS = (
    "creationTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)


def load_template(path: str | None) -> dict[str, Any]:
    """The pod template in the YAML file `path`, or the built-in one without a path.

    Raises:
        TemplateError: one line with the path, what is wrong with it and what to do.
    """
    if not path:
        template: dict[str, Any] = plain_json(DEFAULT_TEMPLATE, "pod")
        return template
    document = _read_document(path)
    try:
        template = check_pod(document, "pod")
        for name in ("apiVersion", "kind"):
            if name not in template:
                raise ShapeError(f"pod.{name} is missing: a template is a whole Pod")
    except ShapeError as error:
        raise TemplateError(f"pod template {path}: {error}") from None
    _base_container(template, f"pod template {path}")
    return template


def _read_document(path: str) -> object:
    try:
        text = Path(path).read_text(encoding="utf-8")
        documents = [part for part in yaml.load_all(text, _YAML_LOADER) if part is not None]
    except OSError as error:
        raise TemplateError(
            f"pod template {path}: {error.strerror or error}: correct pod_template_file, "
            "or leave it empty for the built-in template"
        ) from None
    except UnicodeDecodeError:
        raise TemplateError(f"pod template {path}: is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TemplateError(
            f"pod template {path}: is not valid YAML{_place(error)}: correct it there"
        ) from None
    if len(documents) != 1:
        raise TemplateError(
            f"pod template {path}: has {len(documents)} YAML documents: leave exactly one, the Pod"
        )
    return documents[0]


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    return f", line {mark.line + 1} ({problem})" if mark is not None else ""


def build_manifest(
    template: dict[str, Any],
    settings: KubernetesSettings,
    message: LaunchMessage,
    overrides: KubernetesExecutorConfig,
    create_before_ms: int | None,
) -> dict[str, Any]:
    """The pod to create for `message`, as a dict of its own that the caller may change.

    Args:
        template: see `load_template`.
        settings: the `[kubernetes]` settings.
        message: whose pod, where, and what it runs.
        overrides: the task's, read from `message.executor_config`.
        create_before_ms: milliseconds since the epoch after which the API server must
            not create it any more; None for no such limit.

    Raises:
        TemplateError: an override asks for what cannot be merged or is not supported,
            or leaves no container `base`.
    """
    body = blueprint(template, settings, overrides).body(message, create_before_ms)
    manifest: dict[str, Any] = orjson.loads(body)
    return manifest


def blueprint(
    template: dict[str, Any], settings: KubernetesSettings, overrides: KubernetesExecutorConfig
) -> PodBlueprint:
    """What the pods of all tasks with these overrides have in common.

    Our own parts are always merged by name; `settings.merge` says how a `pod_override` is.

    Raises:
        TemplateError: as `build_manifest`.
    """
    pod: dict[str, Any] = plain_json(template, "pod")
    try:
        common = KubernetesExecutorConfig(
            image=settings.image or None,
            image_pull_policy=settings.image_pull_policy or None,
            service_account_name=settings.service_account_name or None,
            active_deadline_seconds=math.ceil(settings.active_deadline) or None,
        )
    except ExecutorConfigError as error:
        what = str(error).removeprefix("executor_config: ")
        raise TemplateError(f"configuration, section [kubernetes]: {what}") from None
    for patch in (common.to_pod_patch(), overrides.to_pod_patch()):
        pod = strategic_merge(pod, patch)
    if isinstance(overrides.pod_override, dict):
        pod = _MERGES[settings.merge](pod, overrides.pod_override)
    pod.pop("status", None)
    for name in ("metadata", "spec"):
        if not isinstance(pod.get(name), dict):
            pod[name] = {}
    for name in _SERVER_FIELDS:
        pod["metadata"].pop(name, None)
    for name in ("labels", "annotations"):
        if not isinstance(pod["metadata"].get(name), dict):
            pod["metadata"][name] = {}
    pod.update(apiVersion="v1", kind="Pod")
    pod["spec"].setdefault("restartPolicy", "Never")
    _base_container(pod, "executor_config: the pod with its overrides")
    return PodBlueprint(pod)


def _base_container(pod: dict[str, Any], whose: str) -> None:
    spec = pod.get("spec")
    containers = (spec.get("containers") if isinstance(spec, dict) else None) or []
    for container in containers:
        if isinstance(container, dict) and container.get("name") == BASE_CONTAINER:
            return
    names = ", ".join(str(container.get("name")) for container in containers) or "none"
    raise TemplateError(
        f"{whose}: has no container named {BASE_CONTAINER!r} in spec.containers (found: {names}): "
        "name the one that runs the task so"
    )
