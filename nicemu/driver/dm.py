"""Device memory (``mlx5_ib_alloc_dm``): blocks of the memory on the NIC, kept in the driver's books.

The CPU reaches it through a BAR, in words of four bytes.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.command import Command
from nicemu.driver.errors import DriverError
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context

BLOCK = 64
"""``MLX5_MEMIC_BASE_SIZE``."""
WORD = 4
MAX_ALIGNMENT = 12


@dataclass(eq=False, slots=True)
class Dm:
    """``length`` bytes at ``offset`` of the device's memory. ``users``: regions of it."""

    context: Context
    offset: int
    length: int
    size: int
    handle: int = 0
    users: int = 0


def allocate(context: Context, length: int, log_align: int = 0) -> Steps[Dm]:
    """Zeroed. EINVAL: no length, or an alignment above a page. ENOMEM: not that much is left."""
    device = context.device
    if length <= 0 or not 0 <= log_align <= MAX_ALIGNMENT:
        raise DriverError(errno.EINVAL, f"device memory: {length} bytes aligned to 2^{log_align}")
    size = -(-length // BLOCK) * BLOCK
    try:
        offset = device.memory.take(size, max(BLOCK, 1 << log_align))
    except OSError as error:
        raise DriverError(errno.ENOMEM, f"device memory: {length} bytes are not free") from error
    block = Dm(context, offset, length, size)
    try:
        yield from device.commands.execute(Command.ALLOC_DM, offset, size)
    except DriverError:
        device.memory.give(offset, size)
        raise
    block.handle = context.driver.dms.add(block)
    return block


def free(block: Dm) -> Steps[None]:
    """EBUSY: a region of it exists."""
    if block.users:
        raise DriverError(errno.EBUSY, f"device memory: {block.users} regions still use it")
    device = block.context.device
    block.context.driver.dms.remove(block.handle)
    yield from device.commands.execute(Command.FREE_DM, block.offset, block.size)
    device.memory.give(block.offset, block.size)


def window(block: Dm, offset: int, length: int) -> np.ndarray:
    """Bytes of the block, through the BAR. EFAULT: outside of it. EINVAL: not whole words."""
    if not 0 <= offset <= block.length or not 0 <= length <= block.length - offset:
        raise DriverError(errno.EFAULT, f"device memory: no {length} bytes at {offset} of {block.length}")
    if offset % WORD or length % WORD:
        raise DriverError(errno.EINVAL, f"device memory: offset {offset} and length {length} are not words")
    start = block.offset + offset
    part: np.ndarray = block.context.device.device.memory[start : start + length]
    return part
