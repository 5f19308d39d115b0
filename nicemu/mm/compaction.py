"""Compaction (``compaction.c``): scattered pages move together, so that blocks of physically adjacent pages come free.

One step takes the block (2 MiB of simulated RAM) with the fewest pages in it, all of them movable, sets its free pages
aside so that nothing is put there meanwhile, and migrates the others away (``isolate_migratepages``,
``migrate_pages``). A device that uses the pages is told by the notifiers of migration, page by page.

Left out: zones, orders below a block, the two scanners' cursors, deferral, contiguous allocation itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.migrate import migrate_pages
from nicemu.mm.page import MODEL, PG_DEVICE_PRIVATE, PG_FILE, PG_HEAD, PG_HWPOISON, PG_TAIL
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.host import Host

BLOCK = 512
"""Pages of a block (``pageblock_nr_pages``)."""
FIXED = PG_FILE | PG_HEAD | PG_TAIL | PG_HWPOISON | PG_DEVICE_PRIVATE
"""Pages that do not move."""


def compact_block(host: Host, block: int = BLOCK) -> Steps[int]:
    """One step: empty a block of ``block`` pages; gives its number, -1 if no block can be emptied."""
    thread = host.thread
    thread.context.append("compaction")
    try:
        tried: set[int] = set()
        while (number := _emptiest(host, block, tried)) >= 0:
            tried.add(number)
            if (yield from _empty_block(host, number, block)):
                host.counters["compact_success"] += 1
                return number
            host.counters["compact_fail"] += 1
        return -1
    finally:
        thread.context.pop()


def _empty_block(host: Host, number: int, block: int) -> Steps[bool]:
    first, last = number * block, (number + 1) * block
    slots = host.frames.slots
    aside = [slots.set_aside(first, last)]
    try:
        for frame in _frames_of(host, number, block).tolist():
            if (yield from migrate_pages(host, [frame])):
                return False
            aside.append(slots.set_aside(first, last))
        return not len(_frames_of(host, number, block))
    finally:
        for part in aside:
            slots.give_back(part)


def _model_frames(host: Host) -> np.ndarray:
    """Frames that have a page of simulated RAM."""
    found: np.ndarray = np.flatnonzero(host.pages.kinds == MODEL)
    return found


def _frames_of(host: Host, number: int, block: int) -> np.ndarray:
    frames = _model_frames(host)
    inside: np.ndarray = frames[host.pages.slots[frames] // block == number]
    return inside


def _emptiest(host: Host, block: int, tried: set[int]) -> int:
    """The block with the fewest pages, at least one, all movable; -1 if there is none (``isolation_suitable``)."""
    frames = _model_frames(host)
    blocks = host.pages.slots[frames] // block
    fixed = (host.pages.all_flags[frames] & FIXED != 0) | (host.pages.refcounts[frames] != host.pages.mapcounts[frames])
    used = np.bincount(blocks)
    used[np.unique(blocks[fixed])] = 0
    order = [
        number
        for number in np.argsort(used, kind="stable").tolist()
        if 0 < used[number] < block and number not in tried
    ]
    return order[0] if order else -1
