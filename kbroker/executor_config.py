"""Per-task overrides: what a task's `executor_config` may say about its pod."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

from kbroker.errors import ExecutorConfigError
from kbroker.pod_shape import (
    ShapeError,
    check_object_list,
    check_pod,
    check_string_map,
    nearest,
    plain_json,
    type_name,
)

SECTION = "KubernetesExecutor"
BASE_CONTAINER = "base"

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(
    r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"
)
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUALIFIED_KEY = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_ENV_FIELDS = ("name", "value", "valueFrom")
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(at: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        given = "an empty string" if value == "" else type_name(value)
        raise ShapeError(f"{at} must be a non-empty string, not {given}")
    return value


def _pull_policy(at: str, value: object) -> object:
    if value not in ("Always", "IfNotPresent", "Never"):
        raise ShapeError(f"{at} must be Always, IfNotPresent or Never, not {value!r}")
    return value


def _memory(at: str, value: object) -> str:
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise ShapeError(f"{at} must be a quantity string such as '512Mi', not {value!r}")
    return value


def _cpu(at: str, value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number or isinstance(value, str)) or not _QUANTITY.fullmatch(str(value)):
        raise ShapeError(f"{at} must be a number of CPUs or a quantity like '500m', not {value!r}")
    return value


def _dns_label(at: str, value: object) -> str:
    if not _DNS_LABEL.fullmatch(_text(at, value)):
        raise ShapeError(
            f"{at} must be lower-case letters, digits and inner '-', at most 63, not {value!r}"
        )
    return str(value)


def _dns_subdomain(at: str, value: object) -> str:
    if not _DNS_SUBDOMAIN.fullmatch(_text(at, value)):
        raise ShapeError(
            f"{at} must be lower-case letters, digits, inner '-' and '.', not {value!r}"
        )
    return str(value)


def _object(at: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise ShapeError(f"{at} must be an object, not {type_name(value)}")
    return value


def _strings(at: str, value: object) -> dict[str, str]:
    strings = check_string_map(value, at)
    for key, text in strings.items():
        if not isinstance(text, str):
            raise ShapeError(f"{at}.{key} must be a string, not {type_name(text)}")
        if not _QUALIFIED_KEY.fullmatch(key):
            raise ShapeError(f"{at}: {key!r} is not a valid Kubernetes key")
    return strings


def _labels(at: str, value: object) -> dict[str, str]:
    strings = _strings(at, value)
    for key, text in strings.items():
        if not _LABEL_VALUE.fullmatch(text):
            raise ShapeError(
                f"{at}.{key} must be at most 63 letters, digits, '-', '_', '.', with a letter or "
                f"digit at both ends, not {text!r}"
            )
    return strings


def _with(*names: str) -> Callable[[str, object], object]:
    """A list of objects that each have these string fields."""

    def check(at: str, value: object) -> object:
        for position, item in enumerate(check_object_list(value, at)):
            for name in names:
                if name not in item:
                    raise ShapeError(f"{at}[{position}] needs {name!r}")
                _text(f"{at}[{position}].{name}", item[name])
        return value

    return check


def _env(at: str, value: object) -> object:
    if isinstance(value, Mapping):
        for name, text in check_string_map(value, at).items():
            _env_name(at, name)
            if not isinstance(text, str):
                raise ShapeError(f"{at}.{name} must be a string, not {type_name(text)}: quote it")
        return value
    if not isinstance(value, list | tuple):
        raise ShapeError(
            f"{at} must be an object of strings or a list of objects with name and value or "
            f"valueFrom, not {type_name(value)}"
        )
    for position, entry in enumerate(check_object_list(value, at)):
        _env_entry(f"{at}[{position}]", entry)
    return value


def _env_entry(at: str, entry: Mapping[str, Any]) -> None:
    for name in entry:
        if name not in _ENV_FIELDS:
            raise ShapeError(f"{at}: unknown key {name!r}{nearest(name, _ENV_FIELDS)}")
    _env_name(at, entry.get("name"))
    if "value" in entry and "valueFrom" in entry:
        raise ShapeError(f"{at} must have value or valueFrom, not both")
    if "value" in entry and not isinstance(entry["value"], str):
        raise ShapeError(
            f"{at}.value must be a string, not {type_name(entry['value'])}: quote it"
        )
    if "valueFrom" in entry:
        _object(f"{at}.valueFrom", entry["valueFrom"])


def _env_name(at: str, name: object) -> None:
    # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    if not isinstance(name, str) or not name or "=" in name or not name.isprintable():
        raise ShapeError(f"{at}: {name!r} is not a name for an environment variable")


def _seconds(at: str, value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < float(str(value)) < math.inf:
        raise ShapeError(f"{at} must be a number of seconds above 0, not {value!r}")
    return value


def _whole_seconds(at: str, value: object) -> object:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ShapeError(f"{at} must be a whole number of seconds from 1, not {value!r}")
    return value


def _pod(at: str, value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = yaml.load(value, _YAML_LOADER)  # noqa: S506 - a safe loader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or type(error).__name__
            raise ShapeError(f"{at} is not YAML of one Pod: {problem}") from None
    return check_pod(value, at)


def _key(check: Callable[[str, Any], object], *, shown: bool = True) -> Any:
    """A key that may be stated; `shown` says whether its value may be logged."""
    return field(default=None, metadata={"check": check, "shown": shown})


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
        gcp_service_account_key: names a key to mount. Read for compatibility, but
            nothing mounts it yet: building a manifest refuses it rather than ignore it.
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
        pod_override: a patch of the pod, as object or YAML, merged last (strategic merge).
        namespace: where the pod is created.
        cluster: name of the cluster whose launchers create it.
        launch_timeout: seconds that the task may wait to be launched.
        active_deadline_seconds: seconds that the pod may run once it has started.

    Raises:
        ExecutorConfigError: a key is unknown or has the wrong type; names the key's path.
    """

    image: str | None = _key(_text)
    image_pull_policy: str | None = _key(_pull_policy)
    request_memory: str | None = _key(_memory)
    request_cpu: str | float | None = _key(_cpu)
    limit_memory: str | None = _key(_memory)
    limit_cpu: str | float | None = _key(_cpu)
    gcp_service_account_key: str | None = _key(_text, shown=False)
    node_selectors: dict[str, str] | None = _key(_labels)
    affinity: dict[str, Any] | None = _key(_object)
    annotations: dict[str, str] | None = _key(_strings)
    volumes: list[dict[str, Any]] | None = _key(_with("name"))
    volume_mounts: list[dict[str, Any]] | None = _key(_with("name", "mountPath"))
    tolerations: list[dict[str, Any]] | None = _key(_with())
    labels: dict[str, str] | None = _key(_labels)
    env: dict[str, str] | list[dict[str, Any]] | None = _key(_env, shown=False)
    service_account_name: str | None = _key(_dns_subdomain)
    pod_template_file: str | None = _key(_text)
    pod_override: dict[str, Any] | str | None = _key(_pod, shown=False)
    namespace: str | None = _key(_dns_label)
    cluster: str | None = _key(_dns_label)
    launch_timeout: float | None = _key(_seconds)
    active_deadline_seconds: int | None = _key(_whole_seconds)

    def __post_init__(self) -> None:
        for key in fields(self):
            value = getattr(self, key.name)
            if value is None:
                continue
            try:
                checked = plain_json(key.metadata["check"](key.name, value), key.name)
            except ShapeError as error:
                raise ExecutorConfigError(f"executor_config: {error}") from None
            object.__setattr__(self, key.name, checked)

    def __repr__(self) -> str:
        """The stated keys; without values that may hold secrets."""
        stated = (
            f"{key.name}={getattr(self, key.name)!r}" if key.metadata["shown"] else f"{key.name}=…"
            for key in fields(self)
            if getattr(self, key.name) is not None
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
        for name, value in _mapping(stated.pop(SECTION, None) or {}, SECTION).items():
            if name in stated:
                raise ExecutorConfigError(
                    f"executor_config: {name!r} stands both at top level and under {SECTION!r}"
                )
            stated[name] = value
        known = [key.name for key in fields(cls)]
        for name in stated:
            if name not in known:
                near = nearest(name, [*known, SECTION])
                raise ExecutorConfigError(f"executor_config: unknown key {name!r}{near}")
        return cls(**stated) if stated else _NO_OVERRIDES

    def as_dict(self) -> dict[str, Any]:
        """The stated keys, JSON-ready and not shared; `from_dict` reads them back."""
        return {
            key.name: plain_json(value, key.name)
            for key in fields(self)
            if (value := getattr(self, key.name)) is not None
        }


def _mapping(value: object, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ExecutorConfigError(f"{at} must be an object, not {type_name(value)}")
    return value


_NO_OVERRIDES = KubernetesExecutorConfig()
