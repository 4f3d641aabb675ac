"""From template, configuration and overrides to the manifest of an attempt's pod.

Later wins: template ← configuration ← per-task keys ← `pod_override` ← identity.
The identity — name, namespace, kbroker's labels and annotations, the base
container's command — is what the rest of kbroker finds its pods by.

With `kubernetes.merge = "airflow"` the pod is the one that Airflow's KubernetesExecutor
makes of the same template and `pod_override`, the identity apart: the first container becomes
`base` and is told that it is such an executor's, and the task's command becomes its arguments,
which the image's entry point, or the template's command, carries out.
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
# What Airflow's executor merges between the template and a pod_override, the identity apart.
_OF_AIRFLOW: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": BASE_CONTAINER,
                "env": [{"name": "AIRFLOW_IS_K8S_EXECUTOR_POD", "value": "True"}],
            }
        ]
    }
}
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


def load_template(path: str | None, merge: str = "strategic") -> dict[str, Any]:
    """The pod template in the YAML file `path`, or the built-in one without a path.

    Args:
        path: where launchers run.
        merge: `kubernetes.merge`: Airflow's calls the first container `base`, whatever name
            the template gives it.

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
    whose = f"pod template {path}"
    if merge == "airflow":
        _base_first(airflow_merge(template, _OF_AIRFLOW), whose)
    else:
        _base_container(template, whose)
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
    as_airflow = settings.merge == "airflow"
    if as_airflow:
        pod = airflow_merge(pod, _OF_AIRFLOW)
    for patch in (_configured(settings), overrides.to_pod_patch()):
        pod = strategic_merge(pod, patch)
    if isinstance(overrides.pod_override, dict):
        pod = _MERGES[settings.merge](pod, overrides.pod_override)
    whose = "executor_config: the pod with its overrides"
    if as_airflow:
        _base_first(pod, whose)
    return finished(pod, settings, whose)


def finished(pod: dict[str, Any], settings: KubernetesSettings, whose: str) -> PodBlueprint:
    """The blueprint of pods that lack nothing but their identity.

    Args:
        pod: after all merges; changed.
        settings: the `[kubernetes]` settings.
        whose: names the pod in an error.

    Raises:
        TemplateError: it has no container `base`, or several.
    """
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
    _base_container(pod, whose)
    as_airflow = settings.merge == "airflow"
    if as_airflow or settings.pod_mutation_hook:
        _as_the_client_reads(pod["spec"])
    return PodBlueprint(pod, as_args=as_airflow)


def _configured(settings: KubernetesSettings) -> dict[str, Any]:
    """The strategic merge patch that states what is configured for all pods."""
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
    return common.to_pod_patch()


def _as_the_client_reads(spec: dict[str, Any]) -> None:
    """Give texts where YAML gave numbers, as the Kubernetes client does, or wants it: in place."""
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        for name in ("requests", "limits"):
            if isinstance(resources.get(name), dict):
                resources[name] = {n: _text(value) for n, value in resources[name].items()}
        for variable in container.get("env") or []:
            if isinstance(variable, dict) and "value" in variable:
                variable["value"] = _text(variable["value"])


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, bool | int | float) else value


def _base_first(pod: dict[str, Any], whose: str) -> None:
    """See that what was merged into the first container was merged into `base`."""
    names = _container_names(pod)
    if names[:1] != [BASE_CONTAINER] or names.count(BASE_CONTAINER) > 1:
        raise TemplateError(
            f"{whose}: has the containers {', '.join(names)}, because "
            'kubernetes.merge = "airflow" merges them by position: put the one that runs the '
            f"task first, name it {BASE_CONTAINER!r}, and no other so"
        )


def _base_container(pod: dict[str, Any], whose: str) -> None:
    names = _container_names(pod)
    if BASE_CONTAINER not in names:
        raise TemplateError(
            f"{whose}: has no container named {BASE_CONTAINER!r} in spec.containers "
            f"(found: {', '.join(names) or 'none'}): name the one that runs the task so"
        )


def _container_names(pod: dict[str, Any]) -> list[str]:
    spec = pod.get("spec")
    containers = (spec.get("containers") if isinstance(spec, dict) else None) or []
    return [str(each.get("name")) if isinstance(each, dict) else "?" for each in containers]
