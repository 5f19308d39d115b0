"""IOTLB: a set-associative cache of MTT entries in front of the radix walk, and a second level behind it.

Sets, ways and latencies come from the profile. A line is tagged by mkey row and page index, so that indices do not
depend on addresses; it covers a page of its mkey's size.
"""

from nicemu._jit import cold, jit
from nicemu.nic import hooks
from nicemu.nic.hooks import ask
from nicemu.tables import radix
from nicemu.tables.rows import iotlb, mkey, nic
from nicemu.tables.trace import Ev, trace

IOTLB_MISS = int(Ev.IOTLB_MISS)


@jit
def first_way(base, sets, ways, tag, page):
    """First row of the set a page belongs to."""
    return base + ((page + tag * 7) & (sets - 1)) * ways


@jit
def find_line(world, first, ways, tag, page):
    """Row of the line of a set that holds a page, 0 if none does."""
    for row in range(first, first + ways):
        line = iotlb(world, row)
        if line.mkey == tag and line.page == page:
            return row
    return 0


@cold
def oldest(world, first, ways):
    """Row of the least recently used line of a set."""
    found = first
    for row in range(first + 1, first + ways):
        if iotlb(world, row).clock < iotlb(world, found).clock:
            found = row
    return found


@jit
def fill(world, row, tag, page, entry, clock):
    """Put a translation into a line."""
    line = iotlb(world, row)
    line.mkey = tag
    line.page = page
    line.entry = entry
    line.clock = clock


@jit
def walk(world, n, mkey_row, page):
    """The MTT entry of a page from memory, and what reading it costs."""
    m = mkey(world, mkey_row)
    n.translation_delay += n.iotlb_miss_ns + m.levels * n.mtt_level_ns
    return radix.find(world, m.root, m.levels, page)


@cold
def second_level(world, n, mkey_row, page, keep):
    """The MTT entry of a page from the second level, or else by a walk that fills it if ``keep``."""
    if n.l2_ways == 0:
        return walk(world, n, mkey_row, page)
    first = first_way(n.l2_base, n.l2_sets, n.l2_ways, mkey_row, page)
    row = find_line(world, first, n.l2_ways, mkey_row, page)
    n.translation_delay += n.l2_hit_ns
    if row != 0:
        n.l2_iotlb_hits += 1
        line = iotlb(world, row)
        line.clock = n.iotlb_clock
        return line.entry
    n.l2_iotlb_misses += 1
    entry = walk(world, n, mkey_row, page)
    if entry != 0 and keep:
        fill(world, oldest(world, first, n.l2_ways), mkey_row, page, entry, n.iotlb_clock)
    return entry


@jit
def translate(world, nic_number, mkey_row, page):
    """The MTT entry of a page, 0 if absent. Counts, fills, and adds a miss's time to ``translation_delay``."""
    n = nic(world, nic_number)
    first = first_way(n.iotlb_base, n.iotlb_sets, n.iotlb_ways, mkey_row, page)
    n.iotlb_clock += 1
    row = find_line(world, first, n.iotlb_ways, mkey_row, page)
    if row != 0:
        line = iotlb(world, row)
        line.clock = n.iotlb_clock
        n.iotlb_hits += 1
        return line.entry
    n.iotlb_misses += 1
    keep = ask(world, nic_number, hooks.IOTLB_FILL, nic_number, mkey_row)
    before = n.translation_delay
    entry = second_level(world, n, mkey_row, page, keep)
    trace(world, IOTLB_MISS, nic_number, mkey(world, mkey_row).number, page, n.translation_delay - before, 0)
    if entry == 0:
        return 0
    if keep == 0:
        n.iotlb_bypasses += 1
        return entry
    chosen = ask(world, nic_number, hooks.IOTLB_VICTIM, nic_number, first)
    victim = first + chosen % n.iotlb_ways if chosen >= 0 else oldest(world, first, n.iotlb_ways)
    if iotlb(world, victim).mkey != 0:
        n.iotlb_evictions += 1
    fill(world, victim, mkey_row, page, entry, n.iotlb_clock)
    return entry


@jit
def flush_level(world, slice_of, mkey_row, first_page, pages):
    """Forget the translations of a page range in one level; ``slice_of``: its base, sets and ways."""
    base, sets, ways = slice_of
    if pages < sets * ways:
        for page in range(first_page, first_page + pages):
            row = find_line(world, first_way(base, sets, ways, mkey_row, page), ways, mkey_row, page)
            if row != 0:
                fill(world, row, 0, 0, 0, 0)
        return
    for row in range(base, base + sets * ways):
        line = iotlb(world, row)
        if line.mkey == mkey_row and first_page <= line.page < first_page + pages:
            fill(world, row, 0, 0, 0, 0)


@jit
def flush(world, nic_number, mkey_row, first_page, pages):
    """Forget the translations of a page range."""
    n = nic(world, nic_number)
    flush_level(world, (n.iotlb_base, n.iotlb_sets, n.iotlb_ways), mkey_row, first_page, pages)
    if n.l2_ways != 0:
        flush_level(world, (n.l2_base, n.l2_sets, n.l2_ways), mkey_row, first_page, pages)


@jit
def flush_all(world, n):
    """Forget every translation of the NIC."""
    for row in range(n.iotlb_base, n.iotlb_base + n.iotlb_sets * n.iotlb_ways):
        fill(world, row, 0, 0, 0, 0)
    for row in range(n.l2_base, n.l2_base + n.l2_sets * n.l2_ways):
        fill(world, row, 0, 0, 0, 0)
    n.iotlb_full_flushes += 1
