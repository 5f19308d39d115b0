"""How much memory things take: run as ``python -m nicemu.bench.residence WHAT``, prints bytes. In a process of its own,
for memory that an earlier lab used would count as well.
"""

from __future__ import annotations

import ctypes
import sys
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nicemu.bench import labs
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE
from nicemu.tables.records import Slot
from nicemu.workloads.bench import ACCESS, PAGE, Bench

QPS, PAGES, PART_BYTES = 2000, 1 << 20, 1 << 30
_libc = ctypes.CDLL(None, use_errno=True)


def process_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def all_tables(bench: Bench) -> int:
    """Resident memory of the mappings that hold tables of the world. What was only read of them is the kernel's page of
    zeros and takes nothing."""
    places = sorted(table.ctypes.data for table in bench.lab.world.tables)
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            ours = bisect_left(places, start) < bisect_left(places, end)
        elif head == "Rss:" and ours:
            total += int(line.split()[1]) << 10
    return total


def table_bytes(bench: Bench, slot: Slot) -> int:
    """Resident memory of a table of the world whose pages are written before they are read."""
    return resident(bench.lab.world.tables[slot])


def resident(table: np.ndarray) -> int:
    """Bytes of the pages of an array that are in memory."""
    first = table.ctypes.data // PAGE * PAGE
    pages = -(-(table.ctypes.data + table.nbytes - first) // PAGE)
    found = np.zeros(pages, np.uint8)
    if _libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(pages * PAGE), ctypes.c_void_p(found.ctypes.data)):
        raise OSError(ctypes.get_errno(), "mincore")
    return int((found & 1).sum()) * PAGE


def idle_lab() -> int:
    """The process with a lab of two NICs and an open device."""
    with labs.opened() as bench:
        bench.context()
        return process_bytes()


def rc_qp() -> int:
    """Table rows of one connected RC QP with queues of 16."""
    with labs.opened() as bench:
        first = bench.rc_pair(depth=16)
        before = all_tables(bench)
        for _ in range(QPS // 2):
            bench.rc_pair(depth=16, beside=first)
        return (all_tables(bench) - before) // QPS


def _pages(measured: Callable[[Bench], int]) -> int:
    """Growth by 1 M pages of simulated RAM that the device has, in an on-demand MR prefetched for writing."""
    with labs.opened(memory="model", host={"ram_pages": PAGES + PAGES // 4}) as bench:
        end, process = bench.end(), bench.lab.endpoint.process
        address = process.mmap(PAGES * PAGE, memory="model")
        before = measured(bench)
        mr = bench.opened(MR(end.pd, PAGES * PAGE, ACCESS | e.IBV_ACCESS_ON_DEMAND, address=address))
        parts = [SGE(address + at, PART_BYTES, mr.lkey) for at in range(0, PAGES * PAGE, PART_BYTES)]
        end.pd.advise_mr(e.IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, e.IBV_ADVISE_MR_FLAG_FLUSH, parts)
        return measured(bench) - before


def translations() -> int:
    """Page table and MTT: radix nodes."""
    return _pages(lambda bench: table_bytes(bench, Slot.NODE))


def mapped_pages() -> int:
    """All that the process has grown by, without the contents of pages."""
    return _pages(lambda bench: process_bytes())


WHAT = {"idle": idle_lab, "qp": rc_qp, "translations": translations, "pages": mapped_pages}

if __name__ == "__main__":
    print(WHAT[sys.argv[1]]())
