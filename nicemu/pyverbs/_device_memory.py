"""Memory on the device itself (DM), and descriptor lists."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from nicemu.pyverbs._fields import I32, U32, U64, Field, Struct, expect
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.base import PyverbsObject
from nicemu.pyverbs.mem_alloc import as_bytes
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import import_messages, memory_messages

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


class DM(Resource):
    """Memory on the device: `dm_attr.length` zeroed bytes. With `handle` an existing one of the context (or of the one
    that it was imported from) is imported: closing leaves it.

    PyverbsUserError: the device has none. PyverbsRDMAError: EINVAL (`comp_mask`, alignment), ENOMEM; ENOENT: no DM with
    that handle in the context.
    """

    __slots__ = ("_context",)
    KIND = "dms"
    CHILDREN = ("dm_mrs",)

    def __init__(self, context: Context, dm_attr: AllocDmAttr | None = None, **kwargs: Any) -> None:
        super().__init__()
        expect(dm_attr, AllocDmAttr, "dm_attr", optional=True)
        self._kernel = context._kernel
        if kwargs.get("handle") is not None:
            self._import(context, U32(kwargs["handle"]))
        else:
            self._allocate(context, dm_attr or AllocDmAttr(0))
        self._context: Context | None = context
        self._attach(context)

    def _import(self, context: Context, handle: int) -> None:
        self._execute(import_messages.ImportDm(context._opened(), handle), "Failed to import DM")
        self._handle, self._imported = handle, True

    def _allocate(self, context: Context, attr: AllocDmAttr) -> None:
        most = context.query_device_ex().max_dm_size
        if not most:
            raise PyverbsUserError("Device doesn't support dm allocation")
        failure = f"Failed to allocate device memory of size {attr.length}. Max available size {most}"
        if attr.comp_mask:
            raise PyverbsRDMAError(failure, errno.EINVAL)
        command = memory_messages.AllocDm(context._opened(), attr.length, attr.log_align_req)
        self._handle = self._execute(command, failure)

    def _destroy(self, handle: int) -> None:
        self._execute(memory_messages.FreeDm(handle), "Failed to free dm")

    def _release(self) -> None:
        self._context = None

    def unimport(self) -> None:
        """Let go of an imported DM."""
        self.close()

    def copy_to_dm(self, dm_offset: int, data: Any, length: int) -> None:
        """Copy `length` bytes of `data` (str or bytes) to `dm_offset`; both multiples of 4.

        PyverbsRDMAError: EINVAL (not whole words), EFAULT (outside of it).
        """
        offset, size = U64(dm_offset), U64(length)
        self._execute(
            memory_messages.DmCopy(self._opened(), offset, size, as_bytes(data, size)), "Failed to copy to dm"
        )

    def copy_from_dm(self, dm_offset: int, length: int) -> bytes:
        """`length` bytes at `dm_offset`; errors as for `copy_to_dm`."""
        command = memory_messages.DmCopy(self._opened(), U64(dm_offset), U64(length))
        data: bytes = self._execute(command, "Failed to copy from dm")
        return data

    @property
    def handle(self) -> int:
        """The kernel's handle."""
        return self._opened()


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
