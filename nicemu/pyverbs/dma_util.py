"""Barriers, and stores to registers that a program has mapped.

The emulated device gives no registers away: what a program can name are addresses of its own memory.
"""

from nicemu.pyverbs import mem_alloc

__all__ = ["mmio_write32_as_be", "mmio_write64_as_be", "udma_from_dev_barrier", "udma_to_dev_barrier"]


def udma_to_dev_barrier() -> None:
    """Order stores before the device's reads: they are in order already."""


def udma_from_dev_barrier() -> None:
    """Order the device's writes before loads: they are in order already."""


def mmio_write64_as_be(addr: int, val: int) -> None:
    """Store 64 bits big-endian at `addr`. OSError EFAULT: nothing is mapped there."""
    mem_alloc.writebe64(addr, val)


def mmio_write32_as_be(addr: int, val: int) -> None:
    """Store the low 32 bits of `val` big-endian at `addr`. OSError EFAULT: nothing is mapped there."""
    mem_alloc.writebe32(addr, val)
