"""Kubernetes' strategic merge patch for pods, on plain dicts.

The rules are those of `kubectl patch --type=strategic`
(https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
and https://github.com/kubernetes/community/blob/main/contributors/devel/sig-api-machinery/strategic-merge-patch.md):
maps merge, null deletes, lists are replaced, except for the lists in
`kbroker.merge_keys`, whose elements are matched by a merge key. New elements
come first, elements that the patch names take the patch's order.

Differences, all where kubectl's own result is no usable pod or an accident:

- It copies nulls and directives of elements that it adds or replaces as a whole
  into the result; here they are dropped, as the API server would ignore them.
- It refuses to merge maps and lists in fields that it does not know; here maps
  merge and lists are replaced, so that a newer cluster's fields work.
- It crashes, or does nothing, on directives for fields that cannot have them
  (an element order or deletions for a list without merge strategy, deletions that
  are no list); here that is an error.
- With an element order it refuses two empty lists, refuses a `$patch: replace` or
  not depending on where it stands, and after deletions places new elements by what
  its memory happens to hold; here the order is simply applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kbroker.errors import TemplateError
from kbroker.merge_keys import POD, MergedList, Schema

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETIONS = "$deleteFromPrimitiveList/"
_NO_RULES: Schema = {}


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base`, a pod, patched with `patch`; neither is changed nor shared with the result.

    Raises:
        TemplateError: the patch has an unknown or misplaced directive, or an element of
            a merged list lacks its merge key; the message names the place.
    """
    return _merge_map(_copy(base), patch, POD, "pod")


def _merge_map(
    base: dict[str, Any], patch: Mapping[str, Any], schema: Schema, at: str
) -> dict[str, Any]:
    if _PATCH in patch:
        return _replaced(patch, at)
    result = _retained(base, patch, at)
    ordered = {name.removeprefix(_ORDER) for name in patch if name.startswith(_ORDER)}
    for name in ordered:
        _merge_ordered(result, patch, name, schema, f"{at}.{name}")
    for name, value in patch.items():
        if name in ordered or name == _RETAIN or name.startswith((_ORDER, _DELETIONS)):
            continue
        _merge_field(result, name, value, schema, f"{at}.{name}")
    for directive, value in patch.items():
        if directive.startswith(_DELETIONS):
            _delete_scalars(result, directive, value, schema, at)
    return result


def _replaced(patch: Mapping[str, Any], at: str) -> dict[str, Any]:
    directive = patch[_PATCH]
    if directive == "delete":
        return {}
    if directive == "replace":
        return {name: _stated(value) for name, value in _fields(patch)}
    raise TemplateError(f"{at}: {_PATCH} must be 'replace' or 'delete' here, not {directive!r}")


def _retained(base: dict[str, Any], patch: Mapping[str, Any], at: str) -> dict[str, Any]:
    """`base` without the fields that a `$retainKeys` does not list."""
    if _RETAIN not in patch:
        return base
    keys = _list_of(patch[_RETAIN], f"{at}.{_RETAIN}")
    for name, value in patch.items():
        if value is not None and not name.startswith("$") and name not in keys:
            raise TemplateError(f"{at}: {_RETAIN} does not list {name!r}, which the patch sets")
    return {name: value for name, value in base.items() if name in keys}


def _merge_field(result: dict[str, Any], name: str, value: Any, schema: Schema, at: str) -> None:
    """Merge one field of the patch into `result`, in place."""
    if value is None:
        result.pop(name, None)
        return
    present = result.get(name)
    rule = schema.get(name, _NO_RULES)
    if isinstance(present, dict) and isinstance(value, Mapping):
        inner = _NO_RULES if isinstance(rule, MergedList) else rule
        result[name] = _merge_map(present, value, inner, at)
    elif isinstance(present, list) and isinstance(value, list):
        if isinstance(rule, MergedList):
            result[name] = _merge_list(present, value, rule, at)
        else:
            result[name] = _stated(value)
    elif isinstance(value, Mapping) and _PATCH in value:
        result.pop(name, None)
    else:
        result[name] = _added(value)


def _merge_list(base: list[Any], patch: list[Any], rule: MergedList, at: str) -> list[Any]:
    """Merge a list with merge strategy and put its elements in order."""
    key = _keyed(rule.key, at)
    if rule.key is None:
        scalars = [_scalar(value, at) for value in patch]
        return _in_order(_distinct([*base, *scalars]), scalars, base, key)
    base, patch = _without_special(base, patch, rule, at)
    return _in_order(_merge_elements(base, patch, rule, at), patch, base, key)


def _without_special(
    base: list[Any], patch: list[Any], rule: MergedList, at: str
) -> tuple[list[Any], list[Any]]:
    """Carry out the elements that are directives; return what remains to merge."""
    key = _keyed(rule.key, at)
    plain: list[Any] = []
    replace = False
    for element in patch:
        directive = element.get(_PATCH) if isinstance(element, Mapping) else None
        if directive is None:
            key(element)
            plain.append(element)
        elif directive == "delete":
            gone = key(element)
            base = [kept for kept in base if not _same(key(kept), gone)]
        elif directive == "replace":
            replace = True
        else:
            raise TemplateError(
                f"{at}: {_PATCH} of an element must be 'replace' or 'delete', not {directive!r}"
            )
    return ([_stated(element) for element in plain], []) if replace else (base, plain)


def _merge_elements(base: list[Any], patch: list[Any], rule: MergedList, at: str) -> list[Any]:
    key = _keyed(rule.key, at)
    result = list(base)
    for element in patch:
        value = key(element)
        for position, present in enumerate(result):
            if _same(key(present), value):
                place = f"{at}[{value}]"
                result[position] = _merge_map(present, element, rule.items, place)
                break
        else:
            result.append(_stated(element))
    return result


def _merge_ordered(
    result: dict[str, Any], patch: Mapping[str, Any], name: str, schema: Schema, at: str
) -> None:
    """Merge the list `name`, in place, in the order of its `$setElementOrder`."""
    rule = schema.get(name)
    if not isinstance(rule, MergedList):
        raise TemplateError(f"{at}: {_ORDER} needs a list that is merged; this one is replaced")
    order = _list_of(patch[_ORDER + name], at)
    base = _list_of(result.get(name) or [], at)
    elements = _list_of(patch.get(name) or [], at)
    if not base and not elements:
        return
    key = _keyed(rule.key, at)
    order_keys = [key(element) for element in order]
    positions = [_position(key(each), order_keys) for each in elements if not _directive(each)]
    if None in positions or positions != sorted(p for p in positions if p is not None):
        raise TemplateError(f"{at}: its elements must stand in {_ORDER}{name} in the same order")
    merged = _merge_list(base, elements, rule, at) if name in result else _added(elements)
    result[name] = _in_order(merged, order, base, key)


def _delete_scalars(
    result: dict[str, Any], directive: str, value: Any, schema: Schema, at: str
) -> None:
    name = directive.removeprefix(_DELETIONS)
    rule = schema.get(name)
    if not isinstance(rule, MergedList) or rule.key is not None:
        raise TemplateError(f"{at}: {directive} needs a merged list of scalars, such as finalizers")
    gone = _list_of(value, f"{at}.{directive}")
    present = result.get(name)
    if isinstance(present, list):
        result[name] = [kept for kept in present if _position(kept, gone) is None]


def _in_order(
    merged: list[Any],
    wanted: Iterable[Any],
    original: Iterable[Any],
    key: Callable[[Any], Any],
) -> list[Any]:
    """The elements named in `wanted` in that order, the others in the original's.

    Where both kinds meet, another element precedes a wanted one only if both were in
    the original, in this order.
    """
    wanted_keys = [key(element) for element in wanted]
    original_keys = [key(element) for element in original]
    named: list[tuple[int, Any]] = []
    others: list[Any] = []
    for element in merged:
        position = _position(key(element), wanted_keys)
        if position is None:
            others.append(element)
        else:
            named.append((position, element))
    named.sort(key=lambda pair: pair[0])
    result: list[Any] = []
    for _, element in named:
        place = _position(key(element), original_keys)
        while others and place is not None:
            other = _position(key(others[0]), original_keys)
            if other is None or other >= place:
                break
            result.append(others.pop(0))
        result.append(element)
    return result + others


def _keyed(name: str | None, at: str) -> Callable[[Any], Any]:
    """How to read an element's merge key; a scalar is its own."""
    if name is None:
        return lambda scalar: scalar

    def key(element: Any) -> Any:
        if not isinstance(element, Mapping) or name not in element:
            raise TemplateError(f"{at}: every element must be an object with {name!r}")
        return element[name]

    return key


def _same(left: Any, right: Any) -> bool:
    # Python equates 1, 1.0 and True; Kubernetes does not.
    return type(left) is type(right) and bool(left == right)


def _position(value: Any, values: list[Any]) -> int | None:
    return next((place for place, other in enumerate(values) if _same(value, other)), None)


def _distinct(values: list[Any]) -> list[Any]:
    result: list[Any] = []
    for value in values:
        if _position(value, result) is None:
            result.append(value)
    return result


def _list_of(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateError(f"{at}: must be a list, not {type(value).__name__}")
    return value


def _scalar(value: Any, at: str) -> Any:
    if not isinstance(value, str):
        raise TemplateError(f"{at}: every element must be a string, not {type(value).__name__}")
    return value


def _fields(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The fields of a patch's map that belong into a pod: no nulls, no directives."""
    return [
        (name, inner)
        for name, inner in value.items()
        if inner is not None
        and name not in (_PATCH, _RETAIN)
        and not name.startswith((_ORDER, _DELETIONS))
    ]


def _stated(value: Any) -> Any:
    """A value that the patch replaces or adds as a whole: its fields as they stand."""
    if isinstance(value, Mapping):
        return {
            name: _stated(inner)
            for name, inner in _fields(value)
            if not (isinstance(inner, Mapping) and inner.get(_PATCH) == "delete")
        }
    return [_stated(item) for item in value] if isinstance(value, list) else value


def _added(value: Any) -> Any:
    """A field that the pod does not have: maps with a directive vanish, as in kubectl."""
    if isinstance(value, Mapping):
        return {name: _added(inner) for name, inner in _fields(value) if not _directive(inner)}
    if isinstance(value, list):
        return [_added(item) for item in value if not _directive(item)]
    return value


def _directive(value: Any) -> bool:
    return isinstance(value, Mapping) and _PATCH in value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(inner) for name, inner in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
