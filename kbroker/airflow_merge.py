"""The merge of `pod_override` as Airflow's `PodGenerator` does it, on plain dicts.

For overrides that were written for Airflow's KubernetesExecutor. The rules are those of
`PodGenerator.reconcile_pods` of the cncf-kubernetes provider
(https://airflow.apache.org/docs/apache-airflow-providers-cncf-kubernetes/stable/kubernetes_executor.html):

- containers are merged by position, whatever their names; init containers by name;
- their env, envFrom, ports, volumeMounts and volumeDevices are appended, as are the pod's
  volumes;
- labels and annotations are merged, other fields of the override replace the template's;
- but an empty value (false, 0, "", [], or {} of a map of strings) says nothing: the
  template's stays, even one that is empty too. So an override cannot delete or switch off
  anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbroker.errors import TemplateError

_Fields = dict[str, Any]
_OF_CONTAINERS = ("volumeMounts", "env", "envFrom", "ports", "volumeDevices")
# An empty map says nothing. An empty object of any other field is one: it counts.
_MAPS = frozenset({"nodeSelector", "overhead", "labels", "annotations"})


def airflow_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base`, a pod, merged with `override`; neither is changed nor shared with the result.

    Raises:
        TemplateError: a field that must be a list or an object is none.
    """
    pod, other = _stated(base), _stated(override)
    if "spec" in other:
        other["spec"] = _spec(_object(pod, "spec"), _object(other, "spec"))
    if "metadata" in other:
        other["metadata"] = _metadata(_object(pod, "metadata"), _object(other, "metadata"))
    return _filled(pod, other)


def _metadata(base: _Fields, other: _Fields) -> _Fields:
    for name in ("labels", "annotations"):
        merged = {**(base.get(name) or {}), **(other.get(name) or {})}
        if merged:
            other[name] = merged
    return _filled(base, other)


def _spec(base: _Fields, other: _Fields) -> _Fields:
    containers = _containers(_list(base, "containers"), _list(other, "containers"))
    if containers:
        other["containers"] = containers
    first = _init_containers(_list(base, "initContainers"), _list(other, "initContainers"))
    if first:
        other["initContainers"] = first
    return _filled(base, _appended(base, other, ("volumes",)))


def _containers(base: list[Any], other: list[Any]) -> list[Any]:
    merged = []
    for position in range(max(len(base), len(other))):
        if position >= len(other):
            merged.append(base[position])
        elif position >= len(base):
            merged.append(other[position])
        else:
            merged.append(_container(base[position], other[position]))
    return merged


def _init_containers(base: list[Any], other: list[Any]) -> list[Any]:
    named = {_name(container): container for container in other}
    merged = [
        _container(ours, named.pop(_name(ours))) if _name(ours) in named else ours for ours in base
    ]
    return [*merged, *(container for container in other if _name(container) in named)]


def _container(ours: Any, theirs: Any) -> _Fields:
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        raise TemplateError("pod.spec.containers: every element must be an object")
    return _filled(ours, _appended(ours, theirs, _OF_CONTAINERS))


def _name(container: Any) -> Any:
    return container.get("name") if isinstance(container, dict) else None


def _appended(base: _Fields, other: _Fields, names: tuple[str, ...]) -> _Fields:
    """`other` with its lists behind those of `base`."""
    for name in names:
        if both := [*_list(base, name), *_list(other, name)]:
            other[name] = both
    return other


def _filled(base: _Fields, other: _Fields) -> _Fields:
    """`other`, and what only `base` states."""
    for name, value in base.items():
        if _says_nothing(name, other.get(name)):
            other[name] = value
    return other


def _says_nothing(name: str, value: Any) -> bool:
    return not value and (not isinstance(value, dict) or name in _MAPS)


def _list(fields: _Fields, name: str) -> list[Any]:
    value = fields.get(name) or []
    if not isinstance(value, list):
        raise TemplateError(f"pod: {name} must be a list, not {type(value).__name__}")
    return value


def _object(fields: _Fields, name: str) -> _Fields:
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise TemplateError(f"pod.{name} must be an object, not {type(value).__name__}")
    return value


def _stated(value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without nulls."""
    stated: dict[str, Any] = _without_nulls(dict(value))
    return stated


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: _without_nulls(v) for n, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(element) for element in value]
    return value
