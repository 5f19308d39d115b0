"""Members of C structs: integer conversion as Cython does it, and the descriptors that apply it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NoReturn, Self, overload

from nicemu.pyverbs._enum import VerbsEnum
from nicemu.pyverbs.base import PyverbsObject


@dataclass(frozen=True, slots=True)
class CInt:
    """A C integer type. Calling it converts a Python value: floats are truncated, what does not fit is refused."""

    name: str
    low: int
    high: int
    code: str
    """Its `struct` format character."""

    def __call__(self, value: Any) -> int:
        """`value` as a plain int. TypeError: not a number; OverflowError: out of range."""
        number = value if value.__class__ is int else _to_int(value)
        if not self.low <= number <= self.high:
            raise self._overflow(number)
        return int(number)

    def _overflow(self, number: int) -> OverflowError:
        if number < 0 and not self.low:
            return OverflowError(f"can't convert negative value to {self.name}")
        if not -(2**63) <= number < 2**64:
            return OverflowError(f"Python int too large to convert to C {'long' if self.low else 'unsigned long'}")
        return OverflowError(f"value too large to convert to {self.name}")


def _to_int(value: Any) -> int:
    if not hasattr(type(value), "__int__") and not hasattr(type(value), "__index__"):
        raise TypeError("an integer is required")
    return int(value)


U8 = CInt("uint8_t", 0, 2**8 - 1, "B")
U16 = CInt("uint16_t", 0, 2**16 - 1, "H")
U32 = CInt("unsigned int", 0, 2**32 - 1, "I")
U64 = CInt("unsigned long", 0, 2**64 - 1, "Q")
I32 = CInt("int", -(2**31), 2**31 - 1, "i")


class Struct(PyverbsObject):
    """An object in front of a C struct; its members are `Field`s and are 0 until set."""

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._values = {}
        return self

    def __init__(self, **members: Any) -> None:
        super().__init__()
        for name, value in members.items():
            setattr(self, name, value)


class Field:
    """A member of a `Struct`, converted when it is set. `member`: its C name, if that differs.

    One of an `enum` reads as a member of that, named or not.
    """

    def __init__(
        self, ctype: CInt = U32, member: str = "", enum: type[VerbsEnum] | None = None, doc: str | None = None
    ) -> None:
        self.ctype = ctype
        self.name = member
        self.enum = enum
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> int: ...
    def __get__(self, instance: Struct | None, owner: type) -> Self | int:
        if instance is None:
            return self
        value: int = instance._values.get(self.name, 0)
        return value if self.enum is None else self.enum.of(value)

    def __set__(self, instance: Struct, value: Any) -> None:
        instance._values[self.name] = self.ctype(value)


class Constant(Field):
    """A member of a `Struct` that the kernel filled in and nobody else may set."""

    def __set__(self, instance: Struct, value: Any) -> NoReturn:
        raise AttributeError(f"attribute '{self.name}' of '{type(instance).__name__}' objects is not writable")


class Packed:
    """A member at a fixed offset of `_image`, which go into a ring or came out of one. `enum` as in `Field`."""

    def __init__(self, ctype: CInt, offset: int, enum: type[VerbsEnum] | None = None, doc: str | None = None) -> None:
        self.ctype, self.offset, self.enum, self.__doc__ = ctype, offset, enum, doc
        packer = struct.Struct("<" + ctype.code)
        self.pack_into, self.unpack_from = packer.pack_into, packer.unpack_from

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> int: ...
    def __get__(self, instance: Any, owner: type) -> Self | int:
        if instance is None:
            return self
        value: int = self.unpack_from(instance._image, self.offset)[0]
        return value if self.enum is None else self.enum.of(value)

    def __set__(self, instance: Any, value: Any) -> None:
        self.pack_into(instance._image, self.offset, self.ctype(value))


def expect(value: Any, kind: type, argument: str, optional: bool = False) -> None:
    """Raise the TypeError that a typed argument gives when `value` is not a `kind` (or None, if `optional`)."""
    if not isinstance(value, kind) and not (optional and value is None):
        wanted = f"{kind.__module__.removeprefix('nicemu.')}.{kind.__name__}"
        raise TypeError(f"Argument '{argument}' has incorrect type (expected {wanted}, got {type(value).__name__})")
