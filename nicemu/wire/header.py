"""How a header is declared: a class whose fields say their bits, first the most significant one of the first byte.

Parser, emitter, printer, the ICRC's masks and the table of ``docs/wire.md`` all come from that one declaration::

    @header
    class Immdt(Header):
        imm: int = bits(32, HEX)

A header is a big-endian number cut into fields: nothing here knows more than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

DEC, HEX, FLAG, RESERVED, MAC, IPV4, IPV6 = "dec", "hex", "flag", "reserved", "mac", "ipv4", "ipv6"


class WireError(ValueError):
    """Bytes that are no RoCEv2 packet, or a value that no field can hold: one line, header and field first."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``shift`` is the distance of its last bit from the header's last bit."""

    name: str
    width: int
    shift: int
    kind: str
    variant: bool

    def text(self, value: int) -> str:
        """``name=value`` as its kind is read; nothing for a clear flag or an empty reserved field."""
        if self.kind in (FLAG, RESERVED) and not value:
            return ""
        if self.kind == FLAG:
            return self.name
        return f"{self.name}={_value(self.kind, value)}"


def _value(kind: str, value: int) -> str:
    if kind == MAC:
        return value.to_bytes(6, "big").hex(":")
    if kind == IPV4:
        return str(IPv4Address(value))
    if kind == IPV6:
        return str(IPv6Address(value))
    return str(value) if kind == DEC else f"{value:#x}"


def bits(width: int, kind: str = DEC, *, default: int = 0, variant: bool = False) -> Any:
    """A field of ``width`` bits. ``variant``: routers may change it, so that the ICRC takes it as all ones."""
    return field(default=default, metadata={"width": width, "kind": kind, "variant": variant})


class Header:
    """Base of all headers: values that are equal if their bytes are."""

    __slots__ = ()
    NAME: ClassVar[str]
    SIZE: ClassVar[int]
    """Bytes."""
    FIELDS: ClassVar[tuple[Field, ...]]
    VARIANT: ClassVar[int]
    """The bits of variant fields, as a number of the header's size."""

    @classmethod
    def parse(cls, data: bytes, at: int = 0) -> Self:
        """The header in ``data[at:]``, which may be longer.

        :raises WireError: it is shorter.
        """
        if len(data) - at < cls.SIZE:
            raise WireError(f"{cls.NAME}: expected {cls.SIZE} bytes, given {max(len(data) - at, 0)}")
        number = int.from_bytes(data[at : at + cls.SIZE], "big")
        return cls(*[number >> f.shift & (1 << f.width) - 1 for f in cls.FIELDS])

    def _number(self) -> int:
        number = 0
        for f in self.FIELDS:
            value = getattr(self, f.name)
            if value >> f.width:
                raise WireError(f"{self.NAME}.{f.name}: expected {f.width} bits, given {value}")
            number = number << f.width | value
        return number

    def emit(self) -> bytes:
        """The header's bytes.

        :raises WireError: a value is negative or too wide for its field.
        """
        return self._number().to_bytes(self.SIZE, "big")

    def masked(self) -> bytes:
        """The bytes as the ICRC sees them: variant fields are all ones."""
        return (self._number() | self.VARIANT).to_bytes(self.SIZE, "big")

    def text(self) -> str:
        """``NAME field=value ...`` on one line."""
        return " ".join(filter(None, [self.NAME, *(f.text(getattr(self, f.name)) for f in self.FIELDS)]))


T = TypeVar("T", bound=Header)


@dataclass_transform(frozen_default=True)
def header(cls: type[T]) -> type[T]:
    """Make a declaration a header. Its bits must fill whole bytes."""
    made = dataclass(frozen=True, slots=True)(cls)
    shift = sum(f.metadata["width"] for f in fields(made))  # type: ignore[arg-type]
    assert shift % 8 == 0, f"{cls.__name__}: {shift} bits"
    made.NAME, made.SIZE, made.VARIANT = cls.__name__.upper(), shift // 8, 0
    layout = []
    for f in fields(made):  # type: ignore[arg-type]
        shift -= f.metadata["width"]
        layout.append(Field(f.name, shift=shift, **f.metadata))
        if f.metadata["variant"]:
            made.VARIANT |= ((1 << f.metadata["width"]) - 1) << shift
    made.FIELDS = tuple(layout)
    return made
