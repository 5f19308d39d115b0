"""Memory on the device itself (DM), which the emulated device does not have yet, and descriptor lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicemu.pyverbs._fields import I32, U32, U64, Field, Struct, expect
from nicemu.pyverbs._resource import unsupported
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsCM, PyverbsObject
from nicemu.pyverbs.pyverbs_error import PyverbsUserError

if TYPE_CHECKING:
    from nicemu.pyverbs.device import Context


class AllocDmAttr(Struct):
    """`ibv_alloc_dm_attr`: bytes and log2 of the alignment."""

    __slots__ = ()
    length = Field(U64)
    log_align_req = Field(U32)
    comp_mask = Field(U32)

    def __init__(self, length: int, log_align_req: int = 0, comp_mask: int = 0) -> None:
        super().__init__(length=length, log_align_req=log_align_req, comp_mask=comp_mask)


class DM(PyverbsCM):
    """Device memory. No emulated device has any: PyverbsUserError, and EOPNOTSUPP for an import by `handle`."""

    __slots__ = ()

    def __init__(self, context: Context, dm_attr: AllocDmAttr | None = None, **kwargs: Any) -> None:
        super().__init__()
        if kwargs.get("handle") is not None:
            raise unsupported("Failed to import DM")
        expect(dm_attr, AllocDmAttr, "dm_attr", optional=True)
        raise PyverbsUserError("Device doesn't support dm allocation")


class FdArr(PyverbsObject):
    """A list of file descriptors."""

    __slots__ = ("_descriptors",)

    def __init__(self, arr: Any = (), count: int = 0) -> None:
        super().__init__()
        self._descriptors = [I32(arr[index]) for index in range(count)]

    def close(self) -> None:
        """Nothing to give up: the descriptors belong to the program."""

    @property
    def arr(self) -> list[int]:
        """The descriptors."""
        return list(self._descriptors)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._descriptors)

    def __str__(self) -> str:
        form = "{:20}: {:<20}\n"
        return lines([("Number of fd in arr", self.count), ("FDs in arr", str(self.arr))], form)
