"""The installation's own last word about a pod: `kubernetes.pod_mutation_hook`.

The contract is that of Airflow's `pod_mutation_hook`: a function that gets the finished pod as a
`kubernetes.client.models.V1Pod` and changes it in place; what it returns means nothing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import orjson

from kbroker.errors import ConfigError, MissingExtraError, MutationHookError
from kbroker.pod_shape import ShapeError, check_pod

_SETTING = "kubernetes.pod_mutation_hook"
_LONGEST = 300
# Shorter words stand in any sentence, and hide nothing.
_TELLING = 16


class MutationHook:
    """A hook, imported.

    Args:
        path: `package.module.function`, or `package.module:function`.

    Raises:
        ConfigError: there is no such function; says what went wrong.
        MissingExtraError: the Kubernetes client is not installed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._hook = _imported(path)
        try:
            from kubernetes import client  # noqa: PLC0415 - whoever has no hook needs none
        except ModuleNotFoundError:
            raise MissingExtraError(_SETTING, "kubernetes") from None
        self._api: Any = client.ApiClient(client.Configuration())
        self._takes_text = "content_type" in inspect.signature(self._api.deserialize).parameters

    def __str__(self) -> str:
        return f"{_SETTING} {self._path!r}"

    def changed(self, pod: dict[str, Any], secrets: Collection[str]) -> dict[str, Any]:
        """The pod after the hook.

        Args:
            pod: as JSON would have it.
            secrets: texts that no error may quote, such as the task's command.

        Raises:
            MutationHookError: the hook raised something, the client's models cannot hold the
                pod, or what the hook left is no pod.
        """
        try:
            model = self._model(pod)
        except Exception as error:
            raise self._error("the pod is none to the Kubernetes client", error, secrets) from None
        lost = _lost(pod, self._api.sanitize_for_serialization(model), "pod")
        if lost is not None:
            raise MutationHookError(
                f"{self}: the launchers' Kubernetes client does not know {lost}, and would lose "
                "it: install a newer one, or correct the field"
            )
        try:
            self._hook(model)
        except Exception as error:
            raise self._error("failed", error, secrets) from None
        try:
            return check_pod(self._api.sanitize_for_serialization(model), "pod")
        except ShapeError as error:
            raise MutationHookError(f"{self} left what is no pod: {error}") from None
        except Exception as error:
            raise self._error("left what is no pod", error, secrets) from None

    def _model(self, pod: dict[str, Any]) -> Any:
        """A V1Pod, of the generation of the client that is installed."""
        text = orjson.dumps(pod).decode()
        if self._takes_text:
            return self._api.deserialize(text, "V1Pod", "application/json")
        return self._api.deserialize(SimpleNamespace(data=text), "V1Pod")

    def _error(self, what: str, error: Exception, secrets: Collection[str]) -> MutationHookError:
        said = _said(error)
        for secret in secrets:
            if len(secret) >= _TELLING:
                said = said.replace(secret, "…").replace(repr(secret)[1:-1], "…")
        line = " ".join(said.split())
        line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
        return MutationHookError(f"{self} {what}: {type(error).__name__}: {line}")


def _said(error: Exception) -> str:
    """Its text; where a model refused a value, without the value."""
    try:
        (first, *_) = error.errors()  # type: ignore[attr-defined]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (AttributeError, KeyError, TypeError, ValueError):
        return str(error)


def _imported(path: str) -> Callable[[Any], object]:
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    if not (module and name):
        raise ConfigError(f"{_SETTING} = {path!r}: must be package.module.function")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            f"{_SETTING} = {path!r}: cannot import {module!r} ({type(error).__name__}: {line}): "
            "is it on the launchers' PYTHONPATH?"
        ) from None
    hook = getattr(found, name, None)
    if not callable(hook):
        what = "has no" if hook is None else "has something else than a function as"
        raise ConfigError(f"{_SETTING} = {path!r}: module {module!r} {what} {name!r}")
    function: Callable[[Any], object] = hook
    return function


def _lost(before: Any, after: Any, at: str) -> str | None:
    """The first field that is no longer there; None if nothing is missing."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if value is None:
                continue
            place = f"{at}.{name}"
            lost = _lost(value, after[name], place) if name in after else place
            if lost is not None:
                return lost
    elif isinstance(before, list) and isinstance(after, list):
        for position, (one, other) in enumerate(zip(before, after, strict=False)):
            lost = _lost(one, other, f"{at}[{position}]")
            if lost is not None:
                return lost
    return None
