"""RDMA WRITEs at random places of a pinned region: what its translations cost, by its size and its pages'."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_HUGETLB_, MAP_PRIVATE_
from nicemu.workloads import Row
from nicemu.workloads.bench import Bench, Region
from nicemu.workloads.stream import gbps, grown, keep_posted

MIB = 1 << 20
PAGE_FLAGS = {"4K": 0, "2M": MAP_HUGETLB_}


def scattered_writes(bench: Bench, *, mebibytes: int = 64, page: str = "4K", large: str = "source", depth: int = 16,
                     message_bytes: int = 4096, messages: int = 4000) -> Iterator[Row]:  # fmt: skip
    """WRITEs at random places of a pinned region.

    From NIC 0 to NIC 1. The ``large`` one of source and target has ``mebibytes`` MiB in pages of 4K or 2M, the
    other one room for one message. Goodput, and the share of translations that missed the IOTLB.
    """
    sender, receiver = bench.rc_pair(depth=depth)
    owner, nic, other = (sender, "nic0", receiver) if large == "source" else (receiver, "nic1", sender)
    flags = MAP_PRIVATE_ | MAP_ANONYMOUS_ | PAGE_FLAGS[page]
    region = bench.opened(Region(owner, mebibytes * MIB, on_demand=False, flags=flags))
    small = other.pinned(message_bytes)
    order, slots = Random(bench.seed), mebibytes * MIB // message_bytes

    def post(_: int) -> None:
        place = order.randrange(slots) * message_bytes
        if large == "source":
            sender.write(small, region.sge(message_bytes, place))
        else:
            sender.write(region, small.sge(), offset=place)

    keep_posted(sender, post, messages, depth)  # fills the caches
    before, start = bench.counters(), bench.now()
    keep_posted(sender, post, messages, depth)
    goodput = gbps(messages * message_bytes, bench.now() - start)
    hits, misses = grown(bench, before, f"{nic}.iotlb_hits", f"{nic}.iotlb_misses").values()
    yield {"goodput_gbps": goodput, "miss_share": round(misses / (hits + misses), 4)}
