"""Pinned user memory (``ib_umem_get``): all pages are faulted in and held while the region exists.

Where the pages lie in aligned blocks of 2 MiB the device gets one translation a block (``ib_umem_find_best_pgsz``).
Left out: other block sizes.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.command import HUGE_SHIFT, MTT_FRAME_SHIFT, MTT_READ, MTT_STAMP_SHIFT, MTT_WRITE, Command
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE
from nicemu.driver.command import MTT_CHUNK
from nicemu.driver.errors import DriverError
from nicemu.mm.memlock import charge_pinned, uncharge_pinned
from nicemu.mm.page import EHWPOISON, Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr

ENTRY = struct.Struct("<q")
UPDATE_MTT = Command.UPDATE_MTT
BLOCK = 1 << HUGE_SHIFT - PAGE_SHIFT
"""Pages of 2 MiB."""


@dataclass(eq=False, slots=True)
class Umem:
    """The pinned pages of a region, ``frame << 1 | writable`` each, and log2 of what a translation of it covers."""

    frames: np.ndarray
    page_shift: int


def page_span(address: int, length: int) -> tuple[int, int]:
    """(first page's address, number of pages) of a byte range."""
    start = address & -PAGE_SIZE
    return start, (address + length - start + PAGE_SIZE - 1) >> PAGE_SHIFT


def mtt_entries(frames: np.ndarray, writable: bool, stamp: int) -> np.ndarray:
    """``abi.command.mtt_entry`` of each ``frame << 1 | writable``, 0 of 0; write entries for a writable region only."""
    frames = frames.astype(np.int64, copy=False)
    write = frames & 1 if writable else np.zeros_like(frames)
    entries: np.ndarray = MTT_READ | write * MTT_WRITE | frames >> 1 << MTT_FRAME_SHIFT | stamp << MTT_STAMP_SHIFT
    entries[frames == 0] = 0
    return entries


def update_mtt_page(region: Mr, page: int, frame: int, stamp: int) -> Steps[bytes]:
    """:func:`update_mtt` of one page, ``frame << 1 | writable``: what most page faults are, without numpy."""
    entry = 0
    if frame:
        entry = MTT_READ | frame >> 1 << MTT_FRAME_SHIFT | stamp << MTT_STAMP_SHIFT
        if frame & 1 and region.writable:
            entry |= MTT_WRITE
    commands = region.pd.context.device.commands
    return commands.execute(UPDATE_MTT, region.index, page, 1, mailbox=ENTRY.pack(entry))


def update_mtt(region: Mr, first: int, entries: np.ndarray) -> Steps[None]:
    """``mlx5r_umr_update_xlt``: hand over the translations of pages ``first``.., a mailbox full at a time."""
    for at in range(0, len(entries), MTT_CHUNK):
        chunk = entries[at : at + MTT_CHUNK]
        yield from region.device.commands.execute(
            UPDATE_MTT, region.index, first + at, len(chunk), mailbox=chunk.astype("<i8", copy=False).tobytes()
        )


def update_mtt_pages(region: Mr, first: int, frames: np.ndarray, stamp: int) -> Steps[None]:
    """:func:`update_mtt` of ``frame << 1 | writable`` each; entries are made a mailbox full at a time as well."""
    for at in range(0, len(frames), MTT_CHUNK):
        entries = mtt_entries(frames[at : at + MTT_CHUNK], region.writable, stamp)
        yield from update_mtt(region, first + at, entries)


def best_page_shift(address: int, frames: np.ndarray) -> int:
    """21 if every 2 MiB of the address range lies in consecutive frames from a multiple of 2 MiB on, alike in being
    writable; else 12."""
    first = address >> PAGE_SHIFT
    huge = len(frames) >= BLOCK and all(
        _in_blocks(first + at, frames[at : at + MTT_CHUNK + 1]) for at in range(0, len(frames), MTT_CHUNK)
    )
    return HUGE_SHIFT if huge else PAGE_SHIFT


def _in_blocks(page: int, frames: np.ndarray) -> bool:
    """Do frames and being writable go on from page to page but at multiples of 2 MiB?"""
    pages = page + np.arange(len(frames))
    distance = (frames >> 1) - pages
    breaks = pages[1:][np.diff(distance << 1 | frames & 1) != 0]
    return not (distance % BLOCK).any() and not (breaks % BLOCK).any()


def huge_blocks(address: int, frames: np.ndarray) -> np.ndarray:
    """``frame << 1 | writable`` of the first page of each 2 MiB block of the range, whether or not it is inside."""
    lead = (address >> PAGE_SHIFT) % BLOCK
    firsts = np.arange(-lead, len(frames), BLOCK)
    inside = np.maximum(firsts, 0)
    blocks: np.ndarray = frames[inside] - ((inside - firsts) << 1)
    return blocks


def owner(region: Mr) -> str:
    """Who holds a region's pins, for reports."""
    return f"MR {region.number} of {region.device.name}"


def pin(region: Mr) -> Steps[Umem]:
    """Fault the region's pages in and hold them; they count towards RLIMIT_MEMLOCK first, as in Linux.

    EFAULT: a page that is not there. ENOMEM: more than the limit, or no memory. EPERM: the limit is 0. Nothing stays
    pinned then.
    """
    mm = region.pd.context.mm
    start, pages = page_span(region.address, region.length)
    pinned: list[np.ndarray] = []
    try:
        charge_pinned(mm, pages, owner(region))
    except Fault as error:
        raise DriverError(error.errno, f"MR: {error.strerror}") from error
    try:
        for first in range(0, pages, MTT_CHUNK):
            count = min(MTT_CHUNK, pages - first)
            pinned.append((yield from mm.pin(start + first * PAGE_SIZE, count, region.writable)))
    except Fault as error:
        for frames in pinned:
            mm.unpin(frames >> 1)
        uncharge_pinned(mm, pages, owner(region))
        # as without FOLL_HWPOISON (``vm_fault_to_errno``)
        number = errno.EFAULT if error.errno == EHWPOISON else error.errno
        raise DriverError(number, f"MR: {error.strerror}") from error
    together = np.concatenate(pinned)
    return Umem(together, best_page_shift(start, together))


def give_to_device(region: Mr, memory: Umem) -> Steps[None]:
    """The device gets the region's translations."""
    frames = memory.frames
    if memory.page_shift == HUGE_SHIFT:
        frames = huge_blocks(region.address, frames)
    yield from update_mtt_pages(region, 0, frames, region.pd.context.driver.stamp())


def release(region: Mr, memory: Umem) -> None:
    """``ib_umem_release``."""
    mm = region.pd.context.mm
    mm.unpin(memory.frames >> 1)
    uncharge_pinned(mm, len(memory.frames), owner(region))
