"""States with huge pages, and a subscriber that notes what it sees, for the tests of THP and hugetlb."""

from __future__ import annotations

from typing import Any

from nicemu.mm import NotifierSubscriber
from nicemu.mm.page_table import HUGE, WRITE
from nicemu.timeline.host import Steps

PAGE, HUGE_SIZE, PAGES = 4096, 1 << 21, 512
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")
START, END, CLEAR, PROTECT, SET, FLUSH, FREE, MOVE, SPLITTING = (
    "notifier_start", "notifier_end", "pte_clear", "pte_protect", "pte_set", "tlb_flush", "free", "pte_move",
    "pmd_splitting",
)  # fmt: skip
OLD = ERAS[:4]
SPLIT = {era: [START, SPLITTING, FLUSH, END, CLEAR, FLUSH, SET] for era in OLD} | {
    "v6.12": [START, CLEAR, FLUSH, SET, END]
}
"""A split of one mapping."""
MAP_HUGETLB, MAP_HUGE_1GB, MAP_NORESERVE = 0x40022, 0x40022 | 30 << 26, 0x44022
MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT, MADV_COLLAPSE = 4, 14, 15, 21, 25


class Watcher(NotifierSubscriber):
    """Notes each callback, whether the page-table lock is held, and what ``look`` gives."""

    name = "watcher"

    def __init__(self, look: Any = lambda: None) -> None:
        self.look = look
        self.seen: list[tuple[str, bool, Any]] = []

    def note(self, callback: str, mm: Any) -> None:
        self.seen.append((callback, mm.page_table_lock.owner is not None, self.look()))

    def invalidate_range_start(self, mm: Any, start: int, end: int, blockable: bool) -> Steps[bool]:
        self.note("start", mm)
        return True
        yield

    def invalidate_range_end(self, mm: Any, start: int, end: int) -> Steps[None]:
        self.note("end", mm)
        return
        yield


def watch(machine: Any, look: Any = lambda: None) -> Watcher:
    watcher = Watcher(look)
    machine.run(machine.mm.notifiers.register(watcher))
    return watcher


def aligned(machine: Any, length: int = HUGE_SIZE) -> int:
    """Address of untouched model memory, aligned to 2 MiB."""
    return int(machine.run(machine.process.posix_memalign(length, HUGE_SIZE)))


def fill(machine: Any, at: int, pages: int = PAGES) -> None:
    """Page i of the range begins with i % 251 + 1, twice."""
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, bytes([page % 251 + 1]) * 2))


def holds(machine: Any, process: Any, at: int, pages: int = PAGES) -> bool:
    """Is it as :func:`fill` left it?"""
    return all(machine.run(process.read(at + page * PAGE, 2)) == bytes([page % 251 + 1]) * 2 for page in range(pages))


def thp(machine: Any, pages: int = PAGES) -> int:
    """Address of a filled THP; the event log is empty."""
    machine.host.transparent_hugepage = "always"
    at = aligned(machine, pages * PAGE)
    fill(machine, at, pages)
    machine.kinds()
    return at


def hugetlb(machine: Any, count: int = 1, pool: int = 4) -> int:
    """Address of ``count`` filled hugetlb pages of 2 MiB; the event log is empty."""
    machine.host.hugetlb.set_nr_hugepages(PAGES, pool)
    at = int(machine.run(machine.process.mmap(count * HUGE_SIZE, flags=MAP_HUGETLB)))
    fill(machine, at, count * PAGES)
    machine.kinds()
    return at


def is_huge(mm: Any, at: int) -> bool:
    return bool(mm.page_table.get(at // PAGE) & HUGE)


def is_writable(mm: Any, at: int) -> bool:
    return bool(mm.page_table.get(at // PAGE) & WRITE)


def under_lock(watcher: Watcher) -> list[tuple[str, bool]]:
    return [(callback, locked) for callback, locked, _ in watcher.seen]


def shared_thp(make_machine: Any, era: str, ram: int = 8192) -> tuple[Any, int, Any]:
    """A machine, a THP that a child shares, and the child; the log is empty."""
    machine = make_machine(era, ram=ram)
    at = thp(machine)
    child = machine.run(machine.process.fork())
    machine.kinds()
    return machine, at, child
