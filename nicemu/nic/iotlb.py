"""IOTLB: a set-associative cache of MTT entries in front of the radix walk.

Sets, ways and the miss penalty come from the profile. A line is tagged by mkey row and page index, so that indices do
not depend on addresses.
"""

from nicemu._jit import jit
from nicemu.nic import hooks
from nicemu.nic.hooks import ask
from nicemu.tables import radix
from nicemu.tables.rows import iotlb, mkey, nic
from nicemu.tables.trace import Ev, trace

IOTLB_MISS = int(Ev.IOTLB_MISS)


@jit
def first_way(n, mkey_row, page):
    """First row of the set a page belongs to."""
    return n.iotlb_base + ((page + mkey_row * 7) & (n.iotlb_sets - 1)) * n.iotlb_ways


@jit
def translate(world, nic_number, mkey_row, page):
    """The MTT entry of a page, 0 if absent. Counts, fills, and adds a miss's time to ``translation_delay``."""
    n = nic(world, nic_number)
    base = first_way(n, mkey_row, page)
    n.iotlb_clock += 1
    victim = base
    oldest = iotlb(world, base).clock
    for way in range(n.iotlb_ways):
        line = iotlb(world, base + way)
        if line.mkey == mkey_row and line.page == page:
            line.clock = n.iotlb_clock
            n.iotlb_hits += 1
            return line.entry
        if line.clock < oldest:
            oldest = line.clock
            victim = base + way
    n.iotlb_misses += 1
    n.translation_delay += n.iotlb_miss_ns
    m = mkey(world, mkey_row)
    entry = radix.find(world, m.root, m.levels, page)
    trace(world, IOTLB_MISS, nic_number, m.number, page, 0, 0)
    if entry == 0:
        return 0
    chosen = ask(world, nic_number, hooks.IOTLB_VICTIM, nic_number, base)
    if chosen >= 0:
        victim = base + chosen % n.iotlb_ways
    line = iotlb(world, victim)
    if line.mkey != 0:
        n.iotlb_evictions += 1
    line.mkey = mkey_row
    line.page = page
    line.entry = entry
    line.clock = n.iotlb_clock
    return entry


@jit
def flush(world, nic_number, mkey_row, first_page, pages):
    """Forget the translations of a page range."""
    n = nic(world, nic_number)
    if pages < n.iotlb_sets * n.iotlb_ways:
        for page in range(first_page, first_page + pages):
            base = first_way(n, mkey_row, page)
            for way in range(n.iotlb_ways):
                line = iotlb(world, base + way)
                if line.mkey == mkey_row and line.page == page:
                    line.mkey = 0
                    line.clock = 0
        return
    for i in range(n.iotlb_base, n.iotlb_base + n.iotlb_sets * n.iotlb_ways):
        line = iotlb(world, i)
        if line.mkey == mkey_row and first_page <= line.page < first_page + pages:
            line.mkey = 0
            line.clock = 0
