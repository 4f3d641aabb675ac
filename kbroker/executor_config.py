"""Per-task overrides: what a task's `executor_config` may say about its pod."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kbroker import override_checks as checks
from kbroker import service_account_key
from kbroker.errors import ExecutorConfigError
from kbroker.pod_shape import ShapeError, nearest, plain_json, type_name

SECTION = "KubernetesExecutor"
BASE_CONTAINER = "base"

_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "image": checks.text,
    "image_pull_policy": checks.pull_policy,
    "request_memory": checks.memory,
    "request_cpu": checks.cpu,
    "limit_memory": checks.memory,
    "limit_cpu": checks.cpu,
    "gcp_service_account_key": checks.dns_subdomain,
    "node_selectors": checks.label_map,
    "affinity": checks.any_object,
    "annotations": checks.annotation_map,
    "volumes": checks.objects_with("name"),
    "volume_mounts": checks.objects_with("name", "mountPath"),
    "tolerations": checks.objects_with(),
    "labels": checks.label_map,
    "env": checks.environment,
    "service_account_name": checks.dns_subdomain,
    "pod_template_file": checks.text,
    "pod_override": checks.pod_patch,
    "namespace": checks.dns_label,
    "cluster": checks.dns_label,
    "launch_timeout": checks.seconds,
    "active_deadline_seconds": checks.whole_seconds,
}
# Their values may hold secrets, which have no place in a repr.
_HIDDEN = frozenset({"gcp_service_account_key", "env", "pod_override"})


@dataclass(frozen=True, slots=True, repr=False)
class KubernetesExecutorConfig:
    """What one task wants of its pod; None everywhere means as configured.

    The first thirteen keys are those of Airflow 1.10's class of the same name.

    Attributes:
        image: the base container's image.
        image_pull_policy: Always, IfNotPresent or Never.
        request_memory: what the base container asks for, a quantity such as "512Mi".
        request_cpu: likewise in CPUs: 0.5, "500m".
        limit_memory: what it may use at most.
        limit_cpu: likewise.
        gcp_service_account_key: name of a Secret with a Google Cloud key, such as one of
            `kubernetes.gcp_service_account_keys`: mounted into the base container, with
            $GOOGLE_APPLICATION_CREDENTIALS naming the file.
        node_selectors: labels that the node must have.
        affinity: a Kubernetes Affinity object.
        annotations: added to the pod's; kbroker's own win.
        volumes: Kubernetes Volume objects, each replacing the template's of that name.
        volume_mounts: VolumeMount objects of the base container, by mountPath.
        tolerations: Toleration objects, replacing the template's.
        labels: added to the pod's; kbroker's own win.
        env: the base container's environment, {"NAME": "value"} or EnvVar objects; an
            entry replaces the template's of that name.
        service_account_name: which the pod runs as.
        pod_template_file: path, where the launchers run, of a template for this task.
        pod_override: a patch of the pod, as object or YAML, merged last, as
            `kubernetes.merge` says.
        namespace: where the pod is created.
        cluster: name of the cluster whose launchers create it.
        launch_timeout: seconds that the task may wait to be launched.
        active_deadline_seconds: seconds that the pod may run once it has started.

    Raises:
        ExecutorConfigError: a key is unknown or has the wrong type; names the key's path.
    """

    image: str | None = None
    image_pull_policy: str | None = None
    request_memory: str | None = None
    request_cpu: str | float | None = None
    limit_memory: str | None = None
    limit_cpu: str | float | None = None
    gcp_service_account_key: str | None = None
    node_selectors: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    annotations: dict[str, str] | None = None
    volumes: list[dict[str, Any]] | None = None
    volume_mounts: list[dict[str, Any]] | None = None
    tolerations: list[dict[str, Any]] | None = None
    labels: dict[str, str] | None = None
    env: dict[str, str] | list[dict[str, Any]] | None = None
    service_account_name: str | None = None
    pod_template_file: str | None = None
    pod_override: dict[str, Any] | str | None = None
    namespace: str | None = None
    cluster: str | None = None
    launch_timeout: float | None = None
    active_deadline_seconds: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                checked = plain_json(check(name, value), name)
            except ShapeError as error:
                raise ExecutorConfigError(f"executor_config: {error}") from None
            object.__setattr__(self, name, checked)

    def __repr__(self) -> str:
        """The stated keys; without values that may hold secrets."""
        stated = (
            f"{name}=…" if name in _HIDDEN else f"{name}={getattr(self, name)!r}"
            for name in _CHECKS
            if getattr(self, name) is not None
        )
        return f"{type(self).__name__}({', '.join(stated)})"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any] | None) -> KubernetesExecutorConfig:
        """Read a task's `executor_config`.

        Args:
            config: the keys at top level, or under "KubernetesExecutor" as Airflow 1.10
                has them, or some here and some there; None for no overrides.

        Raises:
            ExecutorConfigError: a key is unknown, stated twice, or of the wrong type.
        """
        if config is None:
            return _NO_OVERRIDES
        stated = dict(_mapping(config, "executor_config"))
        section = stated.pop(SECTION, None)
        for name, value in _mapping({} if section is None else section, SECTION).items():
            if name in stated:
                raise ExecutorConfigError(
                    f"executor_config: {name!r} stands both at top level and under {SECTION!r}"
                )
            stated[name] = value
        for name in stated:
            if name not in _CHECKS:
                near = nearest(name, [*_CHECKS, SECTION])
                raise ExecutorConfigError(f"executor_config: unknown key {name!r}{near}")
        return cls(**stated) if stated else _NO_OVERRIDES

    def as_dict(self) -> dict[str, Any]:
        """The stated keys, JSON-ready and not shared; `from_dict` reads them back."""
        if self is _NO_OVERRIDES:
            return {}
        return {
            name: plain_json(value, name)
            for name in _CHECKS
            if (value := getattr(self, name)) is not None
        }

    def to_pod_patch(self) -> dict[str, Any]:
        """The strategic merge patch that states these overrides, `pod_override` apart.

        Without the keys that are no part of a pod: namespace, cluster, launch_timeout,
        pod_template_file.
        """
        volumes, mounts, env = self.volumes, self.volume_mounts, _env_list(self.env)
        if self.gcp_service_account_key is not None:
            volumes = _with(service_account_key.volume(self.gcp_service_account_key), volumes)
            mounts = _with(service_account_key.volume_mount(), mounts, by="mountPath")
            env = _with(service_account_key.variable(), env)
        metadata = {"labels": self.labels, "annotations": self.annotations}
        spec = {
            "volumes": _replacing(volumes),
            "affinity": self.affinity,
            "tolerations": self.tolerations,
            "nodeSelector": self.node_selectors,
            "serviceAccountName": self.service_account_name,
            "activeDeadlineSeconds": self.active_deadline_seconds,
        }
        container = {
            "image": self.image,
            "imagePullPolicy": self.image_pull_policy,
            "resources": self._resources() or None,
            "env": _replacing(env),
            "volumeMounts": _replacing(mounts),
        }
        if stated := _stated(container):
            spec["containers"] = [{"name": BASE_CONTAINER, **stated}]
        stated_parts = {"metadata": _stated(metadata), "spec": _stated(spec)}
        patch: dict[str, Any] = plain_json(
            {part: values for part, values in stated_parts.items() if values}, "executor_config"
        )
        return patch

    def _resources(self) -> dict[str, dict[str, str]]:
        requests = {"memory": self.request_memory, "cpu": self.request_cpu}
        limits = {"memory": self.limit_memory, "cpu": self.limit_cpu}
        stated = {"requests": _stated(requests), "limits": _stated(limits)}
        return {
            name: {resource: str(quantity) for resource, quantity in quantities.items()}
            for name, quantities in stated.items()
            if quantities
        }


def _mapping(value: object, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ExecutorConfigError(f"{at} must be an object, not {type_name(value)}")
    return value


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _env_list(env: dict[str, str] | list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if isinstance(env, dict):
        return [{"name": name, "value": value} for name, value in env.items()]
    return env


def _with(
    element: dict[str, Any], others: list[dict[str, Any]] | None, by: str = "name"
) -> list[dict[str, Any]]:
    """An element in front of others, unless one of them stands for it already."""
    stated = others or []
    taken = any(other.get(by) == element[by] for other in stated)
    return stated if taken else [element, *stated]


def _replacing(elements: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Elements that replace the template's of the same merge key, field by field.

    Merged, a volume would have two sources and a variable two values, which the API
    server refuses.
    """
    if elements is None:
        return None
    return [{**element, "$retainKeys": list(element)} for element in elements]


_NO_OVERRIDES = KubernetesExecutorConfig()
