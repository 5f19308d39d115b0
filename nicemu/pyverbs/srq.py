"""Shared receive queues. Not there yet: EOPNOTSUPP."""

from __future__ import annotations

from typing import Any

from nicemu.pyverbs._fields import U32, Field, Struct, expect
from nicemu.pyverbs._resource import Unsupported


class SrqAttr(Struct):
    """`ibv_srq_attr`: depth, SGEs per request, and the level that raises an event."""

    __slots__ = ()
    max_wr = Field(U32)
    max_sge = Field(U32)
    srq_limit = Field(U32)

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        super().__init__(max_wr=max_wr, max_sge=max_sge, srq_limit=srq_limit)


class SrqInitAttr(Struct):
    """`ibv_srq_init_attr`."""

    __slots__ = ()
    max_wr = Field(U32)
    max_sge = Field(U32)
    srq_limit = Field(U32)

    def __init__(self, attr: SrqAttr | None = None) -> None:
        expect(attr, SrqAttr, "attr", optional=True)
        super().__init__()
        if attr is not None:
            self._values.update(attr._values)


class SrqInitAttrEx(SrqAttr):
    """`ibv_srq_init_attr_ex`."""

    __slots__ = ("cq", "pd", "xrcd")
    comp_mask = Field(U32)
    srq_type = Field(U32)
    max_num_tags = Field(U32)
    max_ops = Field(U32)

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        super().__init__(max_wr, max_sge, srq_limit)
        self.cq: Any = None
        self.pd: Any = None
        self.xrcd: Any = None


class OpsWr(Unsupported):
    """A tag-matching request."""

    __slots__ = ()


class SRQ(Unsupported):
    """A shared receive queue."""

    __slots__ = ()
