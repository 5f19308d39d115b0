"""XRC domains. Not there yet: EOPNOTSUPP."""

from __future__ import annotations

from nicemu.pyverbs._fields import I32, U32, Field, Struct
from nicemu.pyverbs._resource import Unsupported


class XRCDInitAttr(Struct):
    """`ibv_xrcd_init_attr`."""

    __slots__ = ()
    comp_mask = Field(U32)
    oflags = Field(I32)
    fd = Field(I32)

    def __init__(self, comp_mask: int, oflags: int, fd: int) -> None:
        super().__init__(comp_mask=comp_mask, oflags=oflags, fd=fd)


class XRCD(Unsupported):
    """An XRC domain."""

    __slots__ = ()
