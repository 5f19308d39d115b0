"""Rings and doorbell records in memory of the program: what the allocators of a parent domain gave (``mlx5_buf_alloc``
with ``MLX5_ALLOC_TYPE_CUSTOM``, ``ib_umem_get``).

The pages are held as those of a pinned region are, and the device reaches them through a key that no protection domain
opens. Both sides go through the held pages, so memory that the program takes away reads as ones and swallows writes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.command import Command, RingOwner
from nicemu.abi.rings import DOORBELL_RECORD_BYTES
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE, Access
from nicemu.driver import mkey, umem
from nicemu.driver.errors import DriverError
from nicemu.driver.mr import Mr
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.context import Context
    from nicemu.driver.pd import Pd

NO_PD = 0
RECORD_ALIGNMENT = 8
WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses in the program's memory for an object's rings and its record; 0: memory of the library's own."""

    ring: int = 0
    record: int = 0

    def __bool__(self) -> bool:
        return bool(self.ring or self.record)


class HeldBytes:
    """Held memory as its owner sees it: indexed and sliced like a memoryview of bytes. ``table``: ``memory.Frames``."""

    def __init__(self, table: Any, frames: list[int], first: int, length: int) -> None:
        self._table, self._frames, self._first, self._length = table, frames, first, length

    def __len__(self) -> int:
        return self._length

    def part(self, start: int, length: int) -> HeldBytes:
        """The same bytes from ``start`` on."""
        return HeldBytes(self._table, self._frames, self._first + start, length)

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            start, stop, _ = key.indices(self._length)
            return b"".join(self._read(*piece) for piece in self._pieces(start, stop))
        return self._read(*next(self._pieces(key, key + 1)))[0]

    def __setitem__(self, key: slice, data: bytes | bytearray) -> None:
        start, stop, _ = key.indices(self._length)
        at = 0
        for frame, within, length in self._pieces(start, min(stop, start + len(data))):
            self._table.write(frame, within, bytes(data[at : at + length]))
            at += length

    def cast(self, _: str) -> HeldWords:
        """As signed 64-bit words."""
        return HeldWords(self)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(frame, byte within it, length) of each page's part."""
        at, end = self._first + start, self._first + stop
        while at < end:
            within = at & PAGE_SIZE - 1
            length = min(end - at, PAGE_SIZE - within)
            yield self._frames[at >> PAGE_SHIFT], within, length
            at += length

    def _read(self, frame: int, within: int, length: int) -> bytes:
        data: bytes = self._table.read(frame, within, length)
        return data.ljust(length, b"\xff")


class HeldWords:
    """Held memory as words: a doorbell record's counters."""

    def __init__(self, memory: HeldBytes) -> None:
        self._bytes = memory

    def __getitem__(self, index: int) -> int:
        return int.from_bytes(self._bytes[index * WORD_BYTES : (index + 1) * WORD_BYTES], "little", signed=True)

    def __setitem__(self, index: int, value: int) -> None:
        self._bytes[index * WORD_BYTES : (index + 1) * WORD_BYTES] = value.to_bytes(WORD_BYTES, "little", signed=True)


@dataclass(eq=False, slots=True)
class Held:
    """One range of the program's memory that the device reaches."""

    region: Mr
    pages: umem.Umem
    view: HeldBytes


@dataclass(frozen=True, slots=True)
class Placed:
    """What holds an object's rings and its record, None where they are the library's own."""

    ring: Held | None = None
    record: Held | None = None


def hold(pd: Pd, address: int, length: int, alignment: int) -> Steps[Held]:
    """Zeroed. EINVAL: not aligned. EFAULT: not mapped, or not writable. ENOMEM: out of keys, RLIMIT_MEMLOCK."""
    if address % alignment or not 0 < address <= (1 << 64) - length:
        raise DriverError(errno.EINVAL, f"ring memory at {address:#x}: not at a multiple of {alignment}")
    mm, device = pd.context.mm, pd.context.device
    index, key = mkey.take(device)
    region = Mr(pd, index, key, 0, address, length, 0, Access.LOCAL_WRITE)
    try:
        mm.adopt(address, length)
        pages = yield from umem.pin(region)
        try:
            yield from _give_key(region, pages)
        except DriverError:
            umem.release(region, pages)
            raise
    except DriverError:
        mkey.give(device, index)
        raise
    view = HeldBytes(mm.host.frames, [int(frame) >> 1 for frame in pages.frames], address & PAGE_SIZE - 1, length)
    view[:] = bytes(length)
    return Held(region, pages, view)


def _give_key(region: Mr, pages: umem.Umem) -> Steps[None]:
    """A key that opens the held pages to the device, and to no protection domain."""
    commands, skew = region.device.commands, region.address & PAGE_SIZE - 1
    yield from commands.execute(
        Command.CREATE_MKEY, region.index, region.key, NO_PD, 0, region.length, region.access, 0, 0, skew, 0, 0
    )
    try:
        stamp = region.pd.context.driver.stamp()
        yield from umem.update_mtt_pages(region, 0, pages.frames, stamp)
    except DriverError:
        yield from mkey.destroy(region)
        raise


def let_go(held: Held) -> Steps[None]:
    """The device's key goes, then the pages."""
    yield from mkey.destroy(held.region)
    umem.release(held.region, held.pages)
    mkey.give(held.region.device, held.region.index)


def place(pd: Pd, owner: RingOwner, number: int, places: Places, ring_bytes: int) -> Steps[Placed]:
    """Rings and record of a new object go where the program says. Errors as of :func:`hold`; nothing is held then."""
    wanted = ((places.ring, ring_bytes, PAGE_SIZE), (places.record, DOORBELL_RECORD_BYTES, RECORD_ALIGNMENT))
    held: list[Held | None] = []
    try:
        for address, length, alignment in wanted:
            held.append((yield from hold(pd, address, length, alignment)) if address and length else None)
        keys = [one.region.index if one else 0 for one in held]
        yield from pd.context.device.commands.execute(Command.PLACE_RINGS, int(owner), number, *keys)
    except DriverError:
        for one in held:
            if one is not None:
                yield from let_go(one)
        raise
    return Placed(*held)


def release(placed: Placed) -> Steps[None]:
    """After the object is gone."""
    for held in (placed.record, placed.ring):
        if held is not None:
            yield from let_go(held)


def check_context(pd: Pd, context: Context) -> None:
    """EINVAL: the parent domain is of another context."""
    if pd.context is not context:
        raise DriverError(errno.EINVAL, "CQ: a parent domain of another context")
