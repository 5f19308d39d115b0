"""RDMA WRITEs through a region that is cold at one end: faults, and who asks for the next pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nicemu.pyverbs import enums as e
from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench, End, Region
from nicemu.workloads.stream import gbps, grown, keep_posted


def cold_writes(bench: Bench, *, cold: str = "remote", window: int = 0, message_pages: int = 1, pages: int = 1024,
                depth: int = 4, code: int = 8) -> Iterator[Row]:  # fmt: skip
    """WRITEs, address by address, through a region that the device at one end has never seen.

    Into it (``cold`` remote) or from it (local), ``message_pages`` of its ``pages`` pages each. With a ``window`` its
    owner keeps so many pages ahead of the stream prefetched, asking for half a window at a time (``ibv_advise_mr``).
    """
    sender, receiver = bench.rc_pair(min_rnr_timer=code, depth=depth)
    length, size = pages * PAGE, message_pages * PAGE
    source = sender.region(length, on_demand=cold == "local")
    target = receiver.region(length, on_demand=cold == "remote")
    ahead = _prefetcher(*((receiver, target) if cold == "remote" else (sender, source)), window)

    def post(number: int) -> None:
        ahead(number * message_pages)
        sender.write(target, source.sge(size, number * size), offset=number * size)

    before, start = bench.counters(), bench.now()
    keep_posted(sender, post, pages // message_pages, depth)
    time = bench.now() - start
    more = grown(bench, before, "page_faults", "rnr_naks_sent", "mr.page_prefetch")
    yield {"goodput_gbps": gbps(length, time), "time_ns": time, **more}


def _prefetcher(end: End, region: Region, window: int) -> Callable[[int], None]:
    asked, step = 0, max(window // 2, 1)

    def ahead(page: int) -> None:
        nonlocal asked
        while window and asked < min(region.pages, page + window):
            ask(end, region, min(step, region.pages - asked) * PAGE, asked * PAGE)
            asked += step

    return ahead


def ask(end: End, region: Region, length: int, offset: int) -> None:
    """Have pages of a region prefetched for writing, without waiting."""
    end.pd.advise_mr(e.IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0, [region.sge(length, offset)])
