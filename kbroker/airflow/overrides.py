"""A task's `executor_config`, as Airflow hands it over, in the plain form that kbroker reads.

Airflow gives `pod_override` as a `V1Pod` of whatever Kubernetes client is installed beside it.
Such objects are known by what both generations of that client write into their classes, so that
nothing of it is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

from kbroker import override_checks
from kbroker.errors import ExecutorConfigError
from kbroker.executor_config import SECTION, KubernetesExecutorConfig
from kbroker.pod_shape import ShapeError, type_name

_OVERRIDE = "pod_override"
_KNOWN = (*(f.name for f in fields(KubernetesExecutorConfig)), SECTION)
# How much a foreign key must be like one of ours to be one that is misspelt.
_MISSPELT = 0.8


def plain_config(executor_config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What `KubernetesExecutorConfig.from_dict` reads.

    A `pod_override` becomes a plain dict, whether it was a `V1Pod`, a dict or YAML. A namespace
    in it is the task's, as under Airflow's KubernetesExecutor, unless the key `namespace` names
    another. Keys that are no keys of ours are meant for other executors, and left out.

    Args:
        executor_config: the task's, as Airflow has it.

    Raises:
        ExecutorConfigError: a key is nearly one of ours, or a `pod_override` is no pod.
    """
    if executor_config is None:
        return None
    if not isinstance(executor_config, Mapping):
        raise ExecutorConfigError(
            f"executor_config must be an object, not {type_name(executor_config)}"
        )
    plain = {name: _plain(value) for name, value in executor_config.items() if _ours(name)}
    section = plain.get(SECTION)
    places = [plain, section] if isinstance(section, dict) else [plain]
    named = any("namespace" in place for place in places)
    for place in places:
        if place.get(_OVERRIDE) is None:
            continue
        place[_OVERRIDE] = pod = _pod(place[_OVERRIDE])
        namespace = (pod.get("metadata") or {}).get("namespace")
        if namespace and not named:
            place["namespace"] = namespace
    return plain


def _ours(name: object) -> bool:
    """Whether a key at top level is for kbroker.

    Raises:
        ExecutorConfigError: it is not, but seems to be meant so.
    """
    if name in _KNOWN:
        return True
    given = str(name).lower()
    for known in _KNOWN:
        if difflib.SequenceMatcher(None, given, known.lower()).ratio() >= _MISSPELT:
            raise ExecutorConfigError(
                f"executor_config: unknown key {name!r}; did you mean {known!r}?"
            )
    return False


def _pod(value: Any) -> dict[str, Any]:
    try:
        return override_checks.pod_patch(_OVERRIDE, value)
    except ShapeError as error:
        raise ExecutorConfigError(f"executor_config: {error}") from None


def _plain(value: Any) -> Any:
    """A copy in which models of the Kubernetes client are the objects that they stand for."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, date):
        return value.isoformat()
    attributes = getattr(type(value), "attribute_map", None)
    if not isinstance(attributes, Mapping):
        return value
    # One that an older client pickled lacks what a newer one's class has.
    stated = ((name, getattr(value, attribute, None)) for attribute, name in attributes.items())
    return {name: _plain(inner) for name, inner in stated if inner is not None}
