"""Where the rings of QPs, SRQs and CQs lie: in memory shared with the device, or where a parent domain's allocator
says.

The calls to the allocator are mlx5's: the buffer first and then the doorbell record, given back the other way round
(`mlx5_alloc_buf_custom`, `mlx5_alloc_dbrec`); a QP has one buffer, its receive ring in front.
"""

from __future__ import annotations

import errno
import mmap
import sys
from enum import IntEnum
from types import SimpleNamespace, TracebackType
from typing import Any

from nicemu.abi.rings import DOORBELL_RECORD_BYTES
from nicemu.pyverbs._fields import U64
from nicemu.pyverbs.libibverbs_enums import _IBV_ALLOCATOR_USE_DEFAULT

_RECORD_ALIGNMENT = 8


class ResourceType(IntEnum):
    """What the memory is for: the numbers that mlx5 gives its allocators (`MLX5DV_RES_TYPE_`)."""

    QP, RWQ, DBR, SRQ, CQ = ((1 << 32) + number for number in range(1, 6))


class RingMemory:
    """Addresses that an allocator gave, 0: the library's own memory. As a context it frees them if creation fails."""

    __slots__ = ("_context", "_given")

    def __init__(self, context: Any = None) -> None:
        self._context = context
        self._given: list[tuple[int, ResourceType]] = []

    @property
    def places(self) -> tuple[int, int]:
        """Addresses of the buffer and of the doorbell record."""
        ring = next((address for address, kind in self._given if kind != ResourceType.DBR), 0)
        return ring, next((address for address, kind in self._given if kind == ResourceType.DBR), 0)

    def take(self, size: int, alignment: int, kind: ResourceType) -> None:
        """Ask the allocator for memory. OSError: ENOMEM, it gave none; EINVAL, not aligned as asked."""
        context = self._context
        try:
            address = U64(context.p_alloc(context.pd, context, size, alignment, int(kind)))
        except Exception as error:  # as Cython does with an exception that C cannot take
            _unraisable(error, context.p_alloc)
            address = 0
        if address == _IBV_ALLOCATOR_USE_DEFAULT:
            return
        if not address:
            raise OSError(errno.ENOMEM, f"the allocator gave no memory for {size} bytes")
        self._given.append((address, kind))
        if address % alignment:
            raise OSError(errno.EINVAL, f"the allocator gave {address:#x}, not aligned to {alignment}")

    def free(self) -> None:
        """Give back what the allocator gave, last first; a second call does nothing."""
        while self._given:
            address, kind = self._given.pop()
            context = self._context
            try:
                context.p_free(context.pd, context, address, int(kind))
            except Exception as error:
                _unraisable(error, context.p_free)

    def __enter__(self) -> RingMemory:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            self.free()


def has_allocator(pd: Any) -> bool:
    """`pd` is a parent domain with allocators of its own."""
    return getattr(pd, "_allocator", None) is not None


def allocate(pd: Any, size: int, kind: ResourceType) -> RingMemory:
    """Memory for a ring of `size` bytes and its doorbell record. OSError: ENOMEM, EINVAL; nothing is kept then."""
    memory = RingMemory(pd._allocator)
    with memory:
        if size:
            memory.take(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.PAGESIZE, kind)
        memory.take(DOORBELL_RECORD_BYTES, _RECORD_ALIGNMENT, ResourceType.DBR)
    return memory


def _unraisable(error: Exception, callback: Any) -> None:
    sys.unraisablehook(
        SimpleNamespace(
            exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None, object=callback
        )
    )
