"""QP-context cache: contexts of QPs that work are on the device, others are fetched over PCIe first.

Consulted when a doorbell or a packet names a QP. Size and cost from the profile; off by default.
"""

from nicemu._jit import cold, jit
from nicemu.nic.iotlb import fill, find_line, first_way, oldest
from nicemu.tables.rows import iotlb, nic
from nicemu.tables.trace import Ev, trace

QP_CACHE_MISS = int(Ev.QP_CACHE_MISS)


@jit
def touch(world, nic_number, q_row):
    """Use a QP's context: ns until it is on the device, 0 for a hit or without a cache."""
    return 0 if nic(world, nic_number).qp_cache_ways == 0 else look_up(world, nic_number, q_row)


@cold
def look_up(world, nic_number, q_row):
    """``touch`` where there is a cache."""
    n = nic(world, nic_number)
    n.qp_cache_clock += 1
    first = first_way(n.qp_cache_base, n.qp_cache_sets, n.qp_cache_ways, 0, q_row)
    row = find_line(world, first, n.qp_cache_ways, q_row, 0)
    if row != 0:
        n.qp_cache_hits += 1
        iotlb(world, row).clock = n.qp_cache_clock
        return 0
    n.qp_cache_misses += 1
    fill(world, oldest(world, first, n.qp_cache_ways), q_row, 0, 0, n.qp_cache_clock)
    trace(world, QP_CACHE_MISS, nic_number, q_row - n.qp_base, n.qp_cache_miss_ns, 0, 0)
    return n.qp_cache_miss_ns
