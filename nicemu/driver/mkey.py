"""Memory keys: numbers, variants, and the commands that make and unmake them (``mlx5_core_create_mkey``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.abi.command import HUGE_SHIFT, Command
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.driver.mr import Mr

KEY_BITS, VARIANTS = 8, 256


def take(device: IbDevice) -> tuple[int, int]:
    """(index, key) of a new memory key; the variant is not the one that last stood for this index. ENOMEM."""
    index = device.mkey_numbers.take()
    variant = device.key_variants.get(index, -1) + 1 & VARIANTS - 1
    device.key_variants[index] = variant
    return index, index << KEY_BITS | variant


def give(device: IbDevice, index: int) -> None:
    """The index is free again."""
    device.mkey_numbers.give(index)


def skew(address: int, iova: int) -> int:
    """How far behind ``iova`` the first byte's address lies within a page of any size."""
    return (address - iova) & (1 << HUGE_SHIFT) - 1


def create(region: Mr, flags: int, page_shift: int = 0, device_offset: int = 0) -> Steps[None]:
    """CREATE_MKEY for a region."""
    yield from region.device.commands.execute(
        Command.CREATE_MKEY, region.index, region.key, region.pd.number, region.iova, region.device_length,
        region.access, flags, region.number, skew(region.address, region.iova), page_shift, device_offset,
    )  # fmt: skip


def modify(region: Mr, mask: int, flags: int, page_shift: int = 0) -> Steps[None]:
    """MODIFY_MKEY: the device takes over what the region says now. EINVAL: windows are bound to it."""
    yield from region.device.commands.execute(
        Command.MODIFY_MKEY, region.index, int(mask), region.key, region.pd.number, region.iova, region.device_length,
        region.access, flags, skew(region.address, region.iova), page_shift,
    )  # fmt: skip


def destroy(region: Mr) -> Steps[None]:
    """Returns when no DMA uses the region any more. EINVAL: windows are bound to it."""
    yield from region.device.commands.execute(Command.DESTROY_MKEY, region.index)
