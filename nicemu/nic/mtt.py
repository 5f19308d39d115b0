"""MTT: per-mkey radix trees of page -> (present, write, bus frame), updated by commands only.

A page is the mkey's page size: 4 KiB, or 2 MiB of consecutive frames. The tree of an implicit mkey holds child keys.
"""

from nicemu._jit import jit, load64, store64
from nicemu.nic import iotlb
from nicemu.tables import radix
from nicemu.tables.rows import mkey
from nicemu.tables.trace import Ev, trace

MTT_UPDATE, MTT_ZAP = int(Ev.MTT_UPDATE), int(Ev.MTT_ZAP)


@jit
def levels_for(pages):
    """Radix levels that cover ``pages``."""
    levels = 1
    while pages > 1 << (9 * levels):
        levels += 1
    return levels


@jit
def update(world, n, mkey_row, first_page, pages, entries):
    """Store MTT entries (host address of ``pages`` int64) and forget what the IOTLB held for them."""
    m = mkey(world, mkey_row)
    for i in range(pages):
        page = first_page + i
        node = radix.leaf(world, m.root, m.levels, page)
        if node == 0:
            return
        at = radix.entry_address(world, node, page)
        entry = load64(entries + 8 * i)
        m.pages_mapped += (entry != 0) - (load64(at) != 0)
        store64(at, entry)
    iotlb.flush(world, n, mkey_row, first_page, pages)
    trace(world, MTT_UPDATE, n, m.number, first_page, pages, 0)


@jit
def zap(world, mkey_row, first_page, pages):
    """Clear MTT entries."""
    m = mkey(world, mkey_row)
    page = first_page
    end = first_page + pages
    while page < end and m.pages_mapped > 0:
        page = radix.next_leaf(world, m.root, m.levels, page)
        stop = min(end, (page | 511) + 1)
        node = radix.leaf_or_none(world, m.root, m.levels, page)
        for p in range(page, stop):
            at = radix.entry_address(world, node, p)
            if load64(at) != 0:
                store64(at, 0)
                m.pages_mapped -= 1
        page = max(page, stop)
