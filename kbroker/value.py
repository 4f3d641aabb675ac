"""What the classes of values have in common that are made several times for every task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(kind: type[T]) -> type[T]:
    """Make a class a dataclass with slots that is never changed: mypy sees to it.

    Were it frozen, Python would, and take five times as long to make one.
    """
    return dataclass(slots=True, unsafe_hash="__hash__" not in vars(kind))(kind)
