"""Pinned user memory (``ib_umem_get``): all pages are faulted in and held while the region exists.

Left out: RLIMIT_MEMLOCK accounting, contiguous page blocks larger than 4 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.command import MTT_FRAME_SHIFT, MTT_READ, MTT_STAMP_SHIFT, MTT_WRITE, Command
from nicemu.abi.verbs import PAGE_SHIFT, PAGE_SIZE
from nicemu.driver.command import MTT_CHUNK
from nicemu.driver.errors import DriverError
from nicemu.mm.page import Fault
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.driver.mr import Mr


@dataclass(eq=False, slots=True)
class Umem:
    """The pinned pages of a region, ``frame << 1 | writable`` each."""

    frames: np.ndarray


def page_span(address: int, length: int) -> tuple[int, int]:
    """(first page's address, number of pages) of a byte range."""
    start = address & -PAGE_SIZE
    return start, (address + length - start + PAGE_SIZE - 1) >> PAGE_SHIFT


def mtt_entries(frames: np.ndarray, writable: bool, stamp: int) -> np.ndarray:
    """``abi.command.mtt_entry`` of each ``frame << 1 | writable``; only a writable region gets write entries."""
    write = frames & 1 if writable else np.zeros_like(frames)
    entries: np.ndarray = MTT_READ | write * MTT_WRITE | frames >> 1 << MTT_FRAME_SHIFT | stamp << MTT_STAMP_SHIFT
    return entries


def update_mtt(region: Mr, first: int, entries: np.ndarray) -> Steps[None]:
    """``mlx5r_umr_update_mr_pas``: hand over the translations of pages ``first``.., a mailbox full at a time."""
    for at in range(0, len(entries), MTT_CHUNK):
        chunk = entries[at : at + MTT_CHUNK]
        yield from region.device.commands.execute(
            Command.UPDATE_MTT, region.index, first + at, len(chunk), mailbox=chunk.astype("<i8").tobytes()
        )


def destroy_mkey(region: Mr) -> Steps[None]:
    """Returns when no DMA uses the region any more."""
    yield from region.device.commands.execute(Command.DESTROY_MKEY, region.index)


def create(region: Mr) -> Steps[Umem]:
    """Pin the region and hand its pages to the device. EFAULT: a page that is not there; nothing stays pinned."""
    context = region.pd.context
    start, pages = page_span(region.address, region.length)
    pinned: list[np.ndarray] = []
    try:
        for first in range(0, pages, MTT_CHUNK):
            count = min(MTT_CHUNK, pages - first)
            frames = yield from context.mm.pin(start + first * PAGE_SIZE, count, region.writable)
            pinned.append(frames)
            entries = mtt_entries(frames, region.writable, context.driver.stamp())
            yield from update_mtt(region, first, entries)
    except (Fault, DriverError) as error:
        for frames in pinned:
            context.mm.unpin(frames >> 1)
        raise DriverError(error.errno, f"MR: {error.strerror}") from error
    return Umem(np.concatenate(pinned))


def release(region: Mr, memory: Umem) -> Steps[None]:
    """``ib_umem_release``."""
    yield 0
    region.pd.context.mm.unpin(memory.frames >> 1)
