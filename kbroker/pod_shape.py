"""What can be a pod, or a patch of one: plain JSON of the right outline.

Not the API server's validation, which knows every field; only what kbroker itself
must rely on, and the mistakes that YAML invites.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

_DEEPEST = 64
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_OBJECT_LISTS = ("containers", "initContainers", "ephemeralContainers", "volumes", "tolerations")


class ShapeError(ValueError):
    """A value has the wrong shape; the message starts with the key path."""


def type_name(value: object) -> str:
    """The type of a value in the words of JSON and YAML."""
    names = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list | tuple):
        return "list"
    return names.get(type(value), type(value).__name__)


def nearest(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name most like `name`, or nothing."""
    found = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def plain_json(value: object, at: str, *, depth: int = 0) -> Any:
    """A deep copy of `value` of nothing but JSON types, tuples as lists.

    Raises:
        ShapeError: it holds something else: a date, a number key, NaN, a self-reference.
    """
    if depth > _DEEPEST:
        raise ShapeError(f"{at}: is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        return _text(value, at)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not (math.isfinite(value) and -(2**63) <= value < 2**64):
            raise ShapeError(f"{at}: {value} is not a number that JSON can hold")
        return value
    if isinstance(value, list | tuple):
        return [
            plain_json(item, f"{at}[{position}]", depth=depth + 1)
            for position, item in enumerate(value)
        ]
    if isinstance(value, Mapping):
        return {
            _key(name, at): plain_json(item, f"{at}.{name}", depth=depth + 1)
            for name, item in value.items()
        }
    raise ShapeError(f"{at}: must be plain JSON, not {type_name(value)}: quote it?")


def _key(name: object, at: str) -> str:
    if not isinstance(name, str):
        raise ShapeError(f"{at}: key {name!r} must be a string: quote it")
    return _text(name, at)


def _text(value: str, at: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ShapeError(f"{at}: is not valid Unicode") from None
    return str(value)


def check_string_map(value: object, at: str) -> dict[str, str]:
    """A map from strings to strings, nulls and directives of a patch apart.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ShapeError(f"{at} must be an object of strings, not {type_name(value)}")
    for name, text in value.items():
        if not isinstance(name, str):
            raise ShapeError(f"{at}: key {name!r} must be a string: quote it")
        if not (isinstance(text, str) or text is None or name.startswith("$")):
            raise ShapeError(f"{at}.{name} must be a string, not {type_name(text)}: quote it")
    return dict(value)


def check_object_list(value: object, at: str) -> list[dict[str, Any]]:
    """A list of objects.

    Raises:
        ShapeError: it is none.
    """
    if not isinstance(value, list | tuple):
        raise ShapeError(f"{at} must be a list of objects, not {type_name(value)}")
    for position, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise ShapeError(f"{at}[{position}] must be an object, not {type_name(item)}")
    return list(value)


def check_pod(document: object, at: str) -> dict[str, Any]:
    """A plain copy of a pod, or of a strategic merge patch of one.

    Raises:
        ShapeError: it is neither; the message starts with `at`.
    """
    if not isinstance(document, Mapping):
        raise ShapeError(f"{at} must be a Pod object, not {type_name(document)}")
    pod: dict[str, Any] = plain_json(document, at)
    for name in pod:
        if name not in _TOP and not name.startswith("$"):
            raise ShapeError(f"{at}: a Pod has no field {name!r}{nearest(name, _TOP)}")
    for name, wanted in (("kind", "Pod"), ("apiVersion", "v1")):
        if pod.get(name, wanted) != wanted:
            raise ShapeError(f"{at}.{name} must be {wanted!r}, not {pod[name]!r}")
    metadata, spec = (_section(pod, name, at) for name in ("metadata", "spec"))
    for name in ("labels", "annotations"):
        if metadata.get(name) is not None:
            check_string_map(metadata[name], f"{at}.metadata.{name}")
    for name in _OBJECT_LISTS:
        if spec.get(name) is not None:
            check_object_list(spec[name], f"{at}.spec.{name}")
    return pod


def _section(pod: dict[str, Any], name: str, at: str) -> dict[str, Any]:
    section = pod.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ShapeError(f"{at}.{name} must be an object, not {type_name(section)}")
    return section
