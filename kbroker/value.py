"""Values that are made several times for every task: never changed, compared by what they say."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec


class Value(msgspec.Struct, frozen=True, gc=False):
    """What they have in common.

    msgspec makes one in C. A frozen dataclass takes ten times as long, and every task has dozens.
    What never changes cannot be part of a cycle: the garbage collector need not look at it.

    Attributes:
        HIDDEN: fields that do not show: they are secret, or say nothing.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (n for n in self.__struct_fields__ if n not in self.HIDDEN)
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({fields})"

    def changed(self, **fields: Any) -> Self:
        """The same with other values in these fields.

        Raises:
            TypeError: there is no such field.
        """
        return msgspec.structs.replace(self, **fields)
