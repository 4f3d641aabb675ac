"""How a JSON value that crosses processes is read: its version first, every fault as one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbroker.errors import KbrokerError, MessageError, NewerSchemaError

OLDEST = 1


def string(body: Mapping[str, Any], name: str) -> str:
    """The field `name`, a non-empty string.

    Raises:
        KeyError: there is no such field.
        TypeError: it is something else.
    """
    value = body[name]
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a non-empty string")
    return value


def integer(body: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """The field `name`, a whole number within bounds.

    Raises:
        KeyError: there is no such field.
        TypeError: it is something else.
        ValueError: it is out of bounds.
    """
    value = body[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}")
    return value


class reading:  # noqa: N801 - reads as a statement
    """Turn whatever goes wrong while reading a value into one MessageError.

    Args:
        what: the value is, for the error.
        fields: the value as JSON has it.
        newest: version that this kbroker reads; the field `v` names the value's own.
    """

    def __init__(self, what: str, fields: object, newest: int) -> None:
        self.what = what
        self.fields = fields
        self.newest = newest

    def __enter__(self) -> dict[str, Any]:
        if not isinstance(self.fields, dict):
            raise MessageError(f"not a {self.what}: {type(self.fields).__name__} instead of object")
        version = self.fields.get("v")
        if not isinstance(version, int) or version < OLDEST:
            raise MessageError(f"not a {self.what}: schema {version!r}")
        if version > self.newest:
            raise NewerSchemaError(f"{self.what} of schema {version}; this one reads {self.newest}")
        return self.fields

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MessageError):
            return
        if isinstance(error, ValueError | KeyError | TypeError | KbrokerError):
            raise MessageError(f"not a {self.what}: {error!r}") from error
