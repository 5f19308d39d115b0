"""The system takes pages away that a device has mapped: what it has to wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_FIXED_, MAP_PRIVATE_, mmap, munmap
from nicemu.pyverbs.mr import MR
from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench, End, Region
from nicemu.workloads.stream import grown

STAGES = ("check_ns", "update_ns", "books_ns", "total_ns")
FLUSH = e.IBV_ADVISE_MR_FLAG_FLUSH


def invalidate(bench: Bench, *, pages: int = 1, mapped: bool = True, iterations: int = 100) -> Iterator[Row]:
    """``madvise(DONTNEED)`` of resident pages that the device has mapped, or has not.

    ``call_ns``: the system call; ``total_ns``: its notifier, with the three stages; ``commands``: given to the device.
    """
    end = bench.end()
    region = end.region(pages * PAGE)
    for _ in range(iterations):
        region.populate()
        if mapped:
            _map(end, region.mr, region)
        before = bench.counters()
        row = _timed(bench, region.drop)
        yield {**row, **grown(bench, before, "nic0.commands")}


def take_away(bench: Bench, *, way: str = "munmap", pages: int = 16, iterations: int = 20) -> Iterator[Row]:
    """The device loses its pages by ``way``: munmap, dontneed, pageout, fork, or cow.

    cow: the CPU writes to each page after a fork. ``call_ns``: all of it; ``notified_ns``: the part that notifiers
    took; ``sleeps``: how often the kernel complained of a sleep in atomic context.
    """
    end = bench.end()
    region = end.region(pages * PAGE)
    # for reading only: the device must not break copy-on-write
    reader = bench.opened(MR(end.pd, region.length, e.IBV_ACCESS_ON_DEMAND, address=region.address))
    process = bench.lab.endpoint.process
    for _ in range(iterations):
        region.touch()
        if way == "cow":
            process.fork()
        _map(end, reader, region)
        sleeps = _complaints(bench)
        row = _timed(bench, WAYS[way](bench, region))
        yield {"call_ns": row["call_ns"], "notified_ns": row["total_ns"], "sleeps": _complaints(bench) - sleeps}
        if way == "munmap":
            mmap(region.address, region.length, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_)


WAYS: dict[str, Callable[[Bench, Region], Callable[[], object]]] = {
    "munmap": lambda bench, region: lambda: munmap(region.address, region.length),
    "dontneed": lambda bench, region: region.drop,
    "pageout": lambda bench, region: region.page_out,
    "fork": lambda bench, region: bench.lab.endpoint.process.fork,
    "cow": lambda bench, region: region.touch,
}


def _map(end: End, mr: MR, region: Region) -> None:
    """The device has the region's pages; the CPU gave them contents before."""
    sge = region.sge()
    sge.lkey = mr.lkey
    end.pd.advise_mr(e.IBV_ADVISE_MR_ADVICE_PREFETCH, FLUSH, [sge])


def _timed(bench: Bench, act: Callable[[], object]) -> Row:
    bench.stages()
    start = bench.now()
    act()
    call = bench.now() - start
    _, found = bench.stages()
    return {"call_ns": call, **{name: sum(entry[name] for entry in found) for name in STAGES}}


def _complaints(bench: Bench) -> int:
    return sum(report.count for report in bench.lab.host.reports)
