"""Label and field selectors.

Syntax: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kbroker.local.cluster.failure import Failure

Matcher = Callable[[Mapping[str, Any]], bool]
_Test = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"^\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_COMMA = re.compile(r",(?![^(]*\))")

_FIELDS: dict[str, tuple[str, ...]] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.restartPolicy": ("spec", "restartPolicy"),
    "spec.schedulerName": ("spec", "schedulerName"),
    "status.phase": ("status", "phase"),
    "status.podIP": ("status", "podIP"),
    "involvedObject.name": ("involvedObject", "name"),
    "involvedObject.namespace": ("involvedObject", "namespace"),
    "involvedObject.uid": ("involvedObject", "uid"),
    "involvedObject.kind": ("involvedObject", "kind"),
    "reason": ("reason",),
    "type": ("type",),
}


def matcher(labels: str, fields: str) -> Matcher | None:
    """Whether an object matches both selectors; None when everything does.

    Raises:
        Failure: 400, a selector cannot be read.
    """
    label_tests = [_label_test(part) for part in _COMMA.split(labels) if part.strip()]
    field_tests = [_field_test(part) for part in fields.split(",") if part.strip()]
    if not label_tests and not field_tests:
        return None

    def matches(content: Mapping[str, Any]) -> bool:
        given = content["metadata"].get("labels") or {}
        return all(test(given) for test in label_tests) and all(
            test(content) for test in field_tests
        )

    return matches


def _label_test(requirement: str) -> _Test:
    text = requirement.strip()
    if found := _SET.match(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in text:
            key, value = (part.strip() for part in text.split(operator, 1))
            if not re.fullmatch(r"[-\w./]+", key) or not re.fullmatch(r"[-\w.]*", value):
                break
            if operator == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: labels.get(key) == value
    if text.startswith("!"):
        absent = text[1:].strip()
        return lambda labels: absent not in labels
    if re.fullmatch(r"[-\w./]+", text):
        return lambda labels: text in labels
    raise Failure(400, f"unable to parse requirement: {text!r}")


def _field_test(requirement: str) -> Callable[[Mapping[str, Any]], bool]:
    text = requirement.strip()
    operator = next((found for found in ("!=", "==", "=") if found in text), None)
    if operator is None:
        raise Failure(400, f'invalid selector: "{text}"; can\'t understand "{text}"')
    name, value = (part.strip() for part in text.split(operator, 1))
    path = _FIELDS.get(name)
    if path is None:
        raise Failure(400, f"field label not supported: {name}")

    def present(content: Mapping[str, Any]) -> str:
        part: Any = content
        for step in path:
            part = (part or {}).get(step)
        return part or ""

    if operator == "!=":
        return lambda content: present(content) != value
    return lambda content: present(content) == value
