"""The driver's part of a TM-SRQ: context memory of its tag list, and the ring of operations on it.

mlx5 (``mlx5_create_srq_ex, create_cmd_qp``) passes operations through a QP of its own, whose number their completions
carry; here a number is set aside for that.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi import command
from nicemu.abi.rings import power_of_two
from nicemu.abi.tag_matching import OP_STRIDE
from nicemu.driver.errors import DriverError
from nicemu.driver.ring import Memory

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice


@dataclass(eq=False, slots=True)
class TagList:
    """``first, count``: the device's TAG rows. ``qpn``: of the completions of operations."""

    device: IbDevice
    first: int
    count: int
    max_ops: int
    slots: int
    ring: Memory
    record: Memory
    qpn: int

    def mailbox(self) -> bytes:
        """What CREATE_SRQ tells the device."""
        return command.TAG_LIST.pack(
            self.first, self.count, self.ring.address, self.slots, self.record.address, self.qpn
        )

    def release(self) -> None:
        """Give everything back."""
        self.device.qp_numbers.give(self.qpn)
        self.device.records.give(self.record)
        self.device.device.free_tags(self.first, self.count)


def check_size(device: IbDevice, max_num_tags: int, max_ops: int) -> None:
    """``mlx5_ib_create_srq``, ``ibv_cmd_create_srq_ex``: EINVAL: no tags, or more tags or operations than the device
    has."""
    limits = device.profile.tag_matching
    if not 1 <= max_num_tags <= limits.max_num_tags:
        raise DriverError(errno.EINVAL, f"SRQ: {max_num_tags} tags, the device has 1 to {limits.max_num_tags}")
    if not 0 <= max_ops <= limits.max_ops:
        raise DriverError(errno.EINVAL, f"SRQ: {max_ops} operations, the device has {limits.max_ops}")


def allocate(device: IbDevice, max_num_tags: int, max_ops: int) -> TagList:
    """A list for so many tags. ENOMEM: no context memory, no QP number."""
    try:
        first = device.device.allocate_tags(max_num_tags)
    except MemoryError as error:
        raise DriverError(errno.ENOMEM, str(error)) from error
    try:
        qpn = device.qp_numbers.take()
    except DriverError:
        device.device.free_tags(first, max_num_tags)
        raise
    slots = power_of_two(max_ops)
    ring = device.driver.allocate(slots * OP_STRIDE)
    return TagList(device, first, max_num_tags, max_ops, slots, ring, device.records.take(), qpn)
