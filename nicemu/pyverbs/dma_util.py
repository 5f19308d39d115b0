"""Barriers and stores to device registers. No program writes the emulated device's registers itself."""

from nicemu.pyverbs._resource import unsupported

__all__ = ["mmio_write32_as_be", "mmio_write64_as_be", "udma_from_dev_barrier", "udma_to_dev_barrier"]


def udma_to_dev_barrier() -> None:
    """Order stores before the device's reads: they are in order already."""


def udma_from_dev_barrier() -> None:
    """Order the device's writes before loads: they are in order already."""


def mmio_write64_as_be(addr: int, val: int) -> None:
    """Store to a 64-bit register. Not there: EOPNOTSUPP."""
    raise unsupported("Failed to write a register")


def mmio_write32_as_be(addr: int, val: int) -> None:
    """Store to a 32-bit register. Not there: EOPNOTSUPP."""
    raise unsupported("Failed to write a register")
