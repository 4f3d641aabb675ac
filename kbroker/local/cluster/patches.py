"""Patches: merge (RFC 7386), JSON (RFC 6902), strategic."""

from __future__ import annotations

from typing import Any

import orjson

from kbroker.errors import TemplateError
from kbroker.local.cluster.failure import Failure
from kbroker.strategic_merge import strategic_merge

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def patched(content_type: str, content: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The object with a patch applied; `content` itself stays as it is.

    Raises:
        Failure: 415 for another kind of patch, 400 or 422 for one that cannot be applied.
    """
    copy: dict[str, Any] = orjson.loads(orjson.dumps(content))
    if content_type == JSON:
        return _json_patched(copy, patch)
    if not isinstance(patch, dict):
        raise Failure(400, "the patch is not an object")
    if content_type == MERGE:
        merged: dict[str, Any] = _merged(copy, patch)
        return merged
    if content_type == STRATEGIC:
        try:
            return strategic_merge(copy, patch)
        except TemplateError as error:
            raise Failure(400, str(error)) from error
    raise Failure(
        415,
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON}, {MERGE}, {STRATEGIC}",
    )


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


def _json_patched(content: dict[str, Any], operations: Any) -> dict[str, Any]:
    if not isinstance(operations, list):
        raise Failure(400, "a JSON patch is a list of operations")
    for operation in operations:
        try:
            _apply(content, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Failure(422, f"the server rejected our request: {error}") from error
    return content


def _apply(content: dict[str, Any], operation: dict[str, Any]) -> None:
    kind = operation["op"]
    if kind == "move":
        value = _at(content, operation["from"])
        _remove(content, operation["from"])
        _add(content, operation["path"], value)
    elif kind == "copy":
        value = orjson.loads(orjson.dumps(_at(content, operation["from"])))
        _add(content, operation["path"], value)
    elif kind == "test":
        if _at(content, operation["path"]) != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
    elif kind == "remove":
        _remove(content, operation["path"])
    elif kind == "replace":
        _at(content, operation["path"])
        _remove(content, operation["path"])
        _add(content, operation["path"], operation["value"])
    elif kind == "add":
        _add(content, operation["path"], operation["value"])
    else:
        raise ValueError(f"unknown operation {kind!r}")


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _at(content: Any, path: str) -> Any:
    for step in _steps(path):
        content = content[int(step)] if isinstance(content, list) else content[step]
    return content


def _add(content: Any, path: str, value: Any) -> None:
    *parents, last = _steps(path)
    holder = _at(content, "/".join(["", *parents]))
    if isinstance(holder, list):
        holder.insert(len(holder) if last == "-" else int(last), value)
    else:
        holder[last] = value


def _remove(content: Any, path: str) -> None:
    *parents, last = _steps(path)
    holder = _at(content, "/".join(["", *parents]))
    del holder[int(last) if isinstance(holder, list) else last]
