"""A GID value."""

from __future__ import annotations

from typing import Any, Self

from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.utils import gid_str_to_array


def parse_gid(text: str) -> bytes:
    """The 16 bytes of a GID in its long text form; PyverbsUserError if it is not one."""
    return bytes.fromhex("".join(gid_str_to_array(text)))


def format_gid(raw: bytes) -> str:
    """The long text form of a GID's 16 bytes."""
    digits = raw.hex()
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


class GID(PyverbsObject):
    """A 16-byte GID. `gid` and `str()` give it as 'xxxx:xxxx:xxxx:xxxx:xxxx:xxxx:xxxx:xxxx'."""

    __slots__ = ("_raw",)
    _raw: bytes

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._raw = bytes(16)
        return self

    def __init__(self, val: str | None = None) -> None:
        super().__init__()
        if val is not None:
            self._raw = parse_gid(val)

    @classmethod
    def _from_bytes(cls, raw: bytes) -> GID:
        gid = cls()
        gid._raw = bytes(raw)
        return gid

    @property
    def gid(self) -> str:
        """The GID in its long text form."""
        return str(self)

    @gid.setter
    def gid(self, val: str) -> None:
        self._raw = parse_gid(val)

    def __str__(self) -> str:
        return format_gid(self._raw)


class GidMember:
    """A GID inside a struct: text outside, 16 bytes in `_values` inside; all zero until set."""

    def __init__(self, doc: str | None = None) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else format_gid(instance._values.get(self.name, bytes(16)))

    def __set__(self, instance: Any, value: str | GID) -> None:
        instance._values[self.name] = value._raw if isinstance(value, GID) else parse_gid(value)
