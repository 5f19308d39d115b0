"""The base of the verbs enums: integers that take any value and print as numbers."""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType
from typing import Any, Self


class VerbsEnum(IntEnum):
    """A C enum: `A | B` is a plain int, and a value without a name is legal, as a sum of flags has to be."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        unnamed = int.__new__(cls, value)
        unnamed._name_ = ""
        unnamed._value_ = int(value)
        return unnamed

    @classmethod
    def of(cls, value: int) -> Self:
        """The member of a value, named or not: what calling the class gives, and several times faster."""
        named = cls._value2member_map_.get(value)
        return cls(value) if named is None else named  # type: ignore[return-value]

    def __repr__(self) -> str:
        if not self._name_:
            return f"<{type(self).__name__}: {self._value_}>"
        return super().__repr__()


def flat(module: ModuleType) -> dict[str, Any]:
    """The public names of an enum module and every member of its enums: the layout that pyverbs 44 and older have.

    Constants that the newer layout writes with a leading underscore appear without it too.
    """
    names: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, VerbsEnum):
            names[name] = value
            names.update(value.__members__)
        elif isinstance(value, int):
            names[name] = names[name.lstrip("_")] = value
    return names
