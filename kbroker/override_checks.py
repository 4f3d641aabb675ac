"""The checks of per-task overrides: one function per kind of value.

Each takes the key's path and a value, and returns the value or raises a
`ShapeError` that starts with the path and says what is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from kbroker.pod_shape import (
    ShapeError,
    check_object_list,
    check_pod,
    check_string_map,
    nearest,
    type_name,
)

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


def text(at: str, value: object) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        given = "an empty string" if value == "" else type_name(value)
        raise ShapeError(f"{at} must be a non-empty string, not {given}")
    return value


def pull_policy(at: str, value: object) -> object:
    """A container's imagePullPolicy."""
    if value not in ("Always", "IfNotPresent", "Never"):
        raise ShapeError(f"{at} must be Always, IfNotPresent or Never, not {value!r}")
    return value


def memory(at: str, value: object) -> str:
    """A memory quantity, as a string."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise ShapeError(f"{at} must be a quantity string such as '512Mi', not {value!r}")
    return value


def cpu(at: str, value: object) -> object:
    """A number of CPUs, or a quantity."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number or isinstance(value, str)) or not _QUANTITY.fullmatch(str(value)):
        raise ShapeError(f"{at} must be a number of CPUs or a quantity like '500m', not {value!r}")
    return value


def dns_label(at: str, value: object) -> str:
    """The name of a namespace or a cluster."""
    if not _DNS_LABEL.fullmatch(text(at, value)):
        raise ShapeError(
            f"{at} must be lower-case letters, digits and inner '-', at most 63, not {value!r}"
        )
    return str(value)


def dns_subdomain(at: str, value: object) -> str:
    """The name of most Kubernetes objects."""
    if not _DNS_SUBDOMAIN.fullmatch(text(at, value)):
        raise ShapeError(
            f"{at} must be lower-case letters, digits, inner '-' and '.', not {value!r}"
        )
    return str(value)


def any_object(at: str, value: object) -> object:
    """Any object."""
    if not isinstance(value, Mapping):
        raise ShapeError(f"{at} must be an object, not {type_name(value)}")
    return value


def annotation_map(at: str, value: object) -> dict[str, str]:
    """Annotations: strings under qualified keys."""
    strings = check_string_map(value, at)
    for key, string in strings.items():
        if not isinstance(string, str):
            raise ShapeError(f"{at}.{key} must be a string, not {type_name(string)}")
        if not _QUALIFIED_KEY.fullmatch(key):
            raise ShapeError(f"{at}: {key!r} is not a valid Kubernetes key")
    return strings


def label_map(at: str, value: object) -> dict[str, str]:
    """Labels: valid values under qualified keys."""
    strings = annotation_map(at, value)
    for key, string in strings.items():
        if not _LABEL_VALUE.fullmatch(string):
            raise ShapeError(
                f"{at}.{key} must be at most 63 letters, digits, '-', '_', '.', with a letter or "
                f"digit at both ends, not {string!r}"
            )
    return strings


def objects_with(*names: str) -> Callable[[str, object], object]:
    """A list of objects that each have these string fields."""

    def check(at: str, value: object) -> object:
        for position, item in enumerate(check_object_list(value, at)):
            for name in names:
                if name not in item:
                    raise ShapeError(f"{at}[{position}] needs {name!r}")
                text(f"{at}[{position}].{name}", item[name])
        return value

    return check


def environment(at: str, value: object) -> object:
    """{"NAME": "value"} or a list of EnvVar objects."""
    if isinstance(value, Mapping):
        for name, string in check_string_map(value, at).items():
            _env_name(at, name)
            if not isinstance(string, str):
                raise ShapeError(f"{at}.{name} must be a string, not {type_name(string)}: quote it")
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
        raise ShapeError(f"{at}.value must be a string, not {type_name(entry['value'])}: quote it")
    if "valueFrom" in entry:
        any_object(f"{at}.valueFrom", entry["valueFrom"])


def _env_name(at: str, name: object) -> None:
    # https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    if not isinstance(name, str) or not name or "=" in name or not name.isprintable():
        raise ShapeError(f"{at}: {name!r} is not a name for an environment variable")


def seconds(at: str, value: object) -> object:
    """A number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < float(str(value)) < math.inf:
        raise ShapeError(f"{at} must be a number of seconds above 0, not {value!r}")
    return value


def whole_seconds(at: str, value: object) -> object:
    """An integer from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise ShapeError(f"{at} must be a whole number of seconds from 1, not {value!r}")
    return value


def pod_patch(at: str, value: object) -> dict[str, Any]:
    """A patch of a pod, as object or YAML."""
    if isinstance(value, str):
        try:
            value = yaml.load(value, _YAML_LOADER)  # noqa: S506 - a safe loader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or type(error).__name__
            raise ShapeError(f"{at} is not YAML of one Pod: {problem}") from None
    return check_pod(value, at)
