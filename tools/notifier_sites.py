"""Every call site of ``nicemu.mm.discipline.SITES`` in one run of its own: bring memory into the state that the site
needs, give the one operation. Those whose operation the model lacks are in :data:`NOT_MODELLED`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from notifier_file_sites import FILE_RUNS
from notifier_watch import HUGE_SIZE, PAGE, Observed, SleepingInterval, Watch, WithChangePte, Young

from nicemu.mm.aging import damon_young, page_idle_set
from nicemu.mm.device_memory import make_device_exclusive, migrate_vma
from nicemu.mm.discipline import SITES
from nicemu.mm.khugepaged import khugepaged_scan
from nicemu.mm.migrate import migrate_page
from nicemu.mm.numa import change_prot_numa
from nicemu.mm.oom_reap import oom_reap_task_mm
from nicemu.mm.rmap import page_referenced
from nicemu.mm.soft_dirty import clear_refs
from nicemu.mm.uprobe import uprobe_write_opcode
from nicemu.mm.userfaultfd import pagemap_scan
from nicemu.timeline.host import Steps

READ, RW, RX = 1, 3, 5
DONTNEED, FREE, MERGEABLE = 4, 8, 12

Run = Callable[[Watch], Steps[Any]]

NOT_MODELLED = {
    "hugetlb_unshare": "page tables of hugetlb areas are not shared between address spaces",
    "collapse_pte_mapped": "files have no huge pages",
    "retract": "files have no huge pages",
}


# odp.md 1.3 -----------------------------------------------------------------------------------------------------------


def huge_wp(w: Watch) -> Steps[Any]:
    """A write to a THP that a child shares."""
    at = w.thp()
    w.shared(at, HUGE_SIZE)
    return w.process.write(at, b"y")


def huge_wp_fallback(w: Watch) -> Steps[Any]:
    """A write to a THP that a child shares, when there is no huge page to be had."""
    steps = huge_wp(w)
    w.host.transparent_hugepage = "never"
    return steps


def split_huge(w: Watch) -> Steps[Any]:
    """Half of a THP is unmapped."""
    return w.process.munmap(w.thp(), HUGE_SIZE // 2)


def collapse(w: Watch) -> Steps[Any]:
    """khugepaged finds 512 small pages."""
    at = w.aligned()
    w.host.transparent_hugepage = "always"
    return khugepaged_scan(w.mm, at, at + HUGE_SIZE)


def hugetlb_unmap(w: Watch) -> Steps[Any]:
    """The owner of the last hugetlb page writes to it: its child loses it."""
    at = w.hugetlb(pool=1)
    w.watched = w.run(w.process.fork()).mm
    return w.process.write(at, b"y")


def hugetlb_munmap(w: Watch) -> Steps[Any]:
    """munmap of a hugetlb area."""
    return w.process.munmap(w.hugetlb(), HUGE_SIZE)


def hugetlb_cow(w: Watch) -> Steps[Any]:
    """A write to a hugetlb page that a child shares."""
    at = w.hugetlb()
    w.shared(at, HUGE_SIZE)
    return w.process.write(at, b"y")


def hugetlb_fork(w: Watch) -> Steps[Any]:
    """fork of a process with a hugetlb page."""
    w.hugetlb()
    return w.process.fork()


def fork(w: Watch) -> Steps[Any]:
    """fork of a process with a page."""
    w.written()
    return w.process.fork()


def cow(w: Watch) -> Steps[Any]:
    """A write to a page that a child shares."""
    at = w.written()
    w.shared(at)
    return w.process.write(at, b"y")


def cow_zero_page(w: Watch) -> Steps[Any]:
    """A write to memory that was only read: the zero page."""
    at = int(w.run(w.process.mmap(PAGE)))
    w.run(w.process.read(at, 1))
    return w.process.write(at, b"y")


def cow_change_pte(w: Watch) -> Steps[Any]:
    """A write to a page that a child shares, and the subscriber has `change_pte`."""
    w.subscriber = WithChangePte(w)
    return cow(w)


def unmap(w: Watch) -> Steps[Any]:
    """munmap of a page."""
    return w.process.munmap(w.written(), PAGE)


def zap(w: Watch) -> Steps[Any]:
    """DONTNEED of a page."""
    return w.process.madvise(w.written(), PAGE, DONTNEED)


def mremap(w: Watch) -> Steps[Any]:
    """A mapping that cannot grow where it is moves."""
    at = w.written()
    w.run(w.process.mmap(PAGE))
    return w.process.mremap(at, PAGE, 2 * PAGE)


def unmap_one(w: Watch) -> Steps[Any]:
    """Reclaim takes a page."""
    return w.host.reclaim.evict(w.mm, w.written())


# odp.md 1.4, 1.5 ------------------------------------------------------------------------------------------------------


def mprotect(w: Watch) -> Steps[Any]:
    """mprotect of a page, to read-only."""
    return w.process.mprotect(w.written(), PAGE, READ)


def mprotect_untouched(w: Watch) -> Steps[Any]:
    """mprotect of memory that nobody touched."""
    return w.process.mprotect(int(w.run(w.process.mmap(PAGE))), PAGE, READ)


def ksm_merge(w: Watch) -> Steps[Any]:
    """ksmd merges a page with its child's.

    The second pass over two equal pages: the child's becomes the KSM page, the program's goes."""
    at = w.written()
    child = w.run(w.process.fork())
    w.run(child.write(at, b"x"))  # its own page, with the same bytes
    w.run(w.process.write(at, b"x"))
    for process in (w.process, child):
        w.run(process.madvise(at, PAGE, MERGEABLE))
    w.run(w.host.ksm_scan(2))
    return w.host.ksm_scan(2)


def uprobe(w: Watch) -> Steps[Any]:
    """A breakpoint in memory that the program cannot write."""
    at = w.written()
    w.run(w.process.mprotect(at, PAGE, RX))
    return uprobe_write_opcode(w.mm, at, b"\xcc")


def migrate(w: Watch) -> Steps[Any]:
    """Migration of a page."""
    return migrate_page(w.mm, w.written())


def hugetlb_mprotect(w: Watch) -> Steps[Any]:
    """mprotect of a hugetlb page."""
    return w.process.mprotect(w.hugetlb(), HUGE_SIZE, READ)


def hugetlb_mremap(w: Watch) -> Steps[Any]:
    """mremap of a hugetlb page to another address."""
    at = w.hugetlb()
    return w.process.mremap(at, HUGE_SIZE, HUGE_SIZE, 3, at + 4 * HUGE_SIZE)


def madvise_free(w: Watch) -> Steps[Any]:
    """MADV_FREE of a page."""
    return w.process.madvise(w.written(), PAGE, FREE)


def numa_hint(w: Watch) -> Steps[Any]:
    """A step of the balancing scan."""
    at = w.written()
    return change_prot_numa(w.mm, at, at + PAGE)


def uffd_wp(w: Watch) -> Steps[Any]:
    """UFFDIO_WRITEPROTECT of a page."""
    at = w.written()
    handler = w.run(w.process.userfaultfd())
    w.run(handler.register(at, PAGE))
    return handler.writeprotect(at, PAGE, True)


def _move_target(w: Watch, at: int, size: int) -> Steps[Any]:
    to = int(w.run(w.process.posix_memalign(size, size)))
    handler = w.run(w.process.userfaultfd())
    w.run(handler.register(to, size))
    return handler.move(to, at, size)


def uffd_move(w: Watch) -> Steps[Any]:
    """UFFDIO_MOVE of a page."""
    return _move_target(w, w.written(), PAGE)


def uffd_move_huge(w: Watch) -> Steps[Any]:
    """UFFDIO_MOVE of a THP."""
    return _move_target(w, w.thp(), HUGE_SIZE)


def device_private(w: Watch) -> Steps[Any]:
    """A page moves to a device's own memory."""
    at = w.written()
    return migrate_vma(w.mm, at, at + PAGE, owner="another driver")


def device_exclusive(w: Watch) -> Steps[Any]:
    """A device gets a page for itself."""
    return make_device_exclusive(w.mm, w.written(), owner="another driver")


def oom_reap(w: Watch) -> Steps[Any]:
    """The OOM reaper takes a victim's page; the subscriber's device needs no wait."""
    w.interval = SleepingInterval(w, waits=False)
    w.written()
    return oom_reap_task_mm(w.mm)


def oom_reap_refused(w: Watch) -> Steps[Any]:
    """The OOM reaper meets a subscriber that would have to sleep."""
    w.written()
    return oom_reap_task_mm(w.mm)


def clear_soft_dirty(w: Watch) -> Steps[Any]:
    """4 is written to /proc/pid/clear_refs."""
    w.written()
    return clear_refs(w.mm)


def scan_pagemap(w: Watch) -> Steps[Any]:
    """PAGEMAP_SCAN that write-protects a page."""
    at = w.written()
    w.run(w.run(w.process.userfaultfd(asynchronous=True)).register(at, PAGE))
    return pagemap_scan(w.mm, at, at + PAGE)


RUNS: dict[str, Run] = FILE_RUNS | {
    "huge_wp_fallback": huge_wp_fallback, "huge_wp": huge_wp, "split_huge": split_huge, "collapse": collapse,
    "hugetlb_unmap": hugetlb_unmap, "hugetlb_cow": hugetlb_cow, "hugetlb_fork": hugetlb_fork, "fork": fork, "cow": cow,
    "unmap": unmap, "zap": zap, "mremap": mremap, "unmap_one": unmap_one, "mprotect": mprotect,
    "ksm_protect": ksm_merge, "ksm_replace": ksm_merge, "uprobe": uprobe, "migrate": migrate,
    "hugetlb_mprotect": hugetlb_mprotect, "hugetlb_mremap": hugetlb_mremap, "madvise_free": madvise_free,
    "numa_hint": numa_hint, "uffd_wp": uffd_wp, "uffd_move": uffd_move, "uffd_move_huge": uffd_move_huge,
    "device_private": device_private, "device_exclusive": device_exclusive, "oom_reap": oom_reap,
    "clear_refs": clear_soft_dirty, "pagemap_scan": scan_pagemap,
}  # fmt: skip
"""By call site."""


# Not call sites, or in another state ----------------------------------------------------------------------------------


def release(w: Watch) -> Steps[Any]:
    """A process with a page ends."""
    w.written()
    return w.process.exit()


def _young(w: Watch) -> int:
    w.subscriber = Young(w)
    return w.mm.page_table.get(w.written() // PAGE) >> 12


def reclaim_looks(w: Watch) -> Steps[Any]:
    """Reclaim asks whether a page was used."""
    return page_referenced(w.host, _young(w))


def page_idle(w: Watch) -> Steps[Any]:
    """A page is marked as idle."""
    return page_idle_set(w.host, _young(w))


def damon(w: Watch) -> Steps[Any]:
    """DAMON looks at a page that the CPU did not use."""
    at = w.written()
    w.run(page_referenced(w.host, w.mm.page_table.get(at // PAGE) >> 12))
    w.subscriber = Young(w)
    return damon_young(w.mm, at)


MORE: dict[str, Run] = {
    "cow, zero page": cow_zero_page, "cow, change_pte": cow_change_pte, "hugetlb munmap": hugetlb_munmap,
    "mprotect, untouched": mprotect_untouched, "release": release, "page_referenced": reclaim_looks,
    "page_idle": page_idle, "damon": damon, "oom_reap, refused": oom_reap_refused,
}  # fmt: skip
"""By name."""


def observe(name: str, era: str) -> Observed:
    """Run a call site, or one of :data:`MORE`, in an era. :raises NotInThisKernel: the era lacks it."""
    watch = Watch(era, only=name if name in SITES else "")
    return watch.observe({**RUNS, **MORE}[name](watch))
