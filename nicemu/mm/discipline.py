"""Where mm operations notify, per kernel era: data. Operations have one implementation and call these places.

A call site changes page-table entries under the page-table lock. It may notify at five places, a method of
:class:`Invalidation` each::

    start       before the lock                                  range form
      [lock]
    clearing    under the lock, before the entry changes          v3.6: huge pages
      entry cleared, CPU TLB flushed
    cleared     under the lock, after that                        v3.6: the macros of mmu_notifier.h; change_pte
      [unlock]
    unlocked    before the page may be freed                      page form of the seed series
    end         last                                              range form

Which of them do something is a :class:`Notify`, one per site and era, in :data:`SITES` (odp.md 1.2-1.5). A site that an
era has not got is a configuration error there (:class:`NotInThisKernel`).

The DMA sanitizer's stamp is given when the callback that ends the device's use has returned: after ``start``, after
``clearing``, or after ``invalidate_page``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.lock_report import where
from nicemu.mm.notifier import Event, NotifierRange, invalidate_range_end, invalidate_range_start
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")


class NotInThisKernel(ValueError):
    """The kernel of this discipline has no such operation or callback."""


@dataclass(frozen=True, slots=True)
class Notify:
    """Where a call site notifies."""

    range: bool = False
    """``invalidate_range_start`` before the lock, ``invalidate_range_end`` after it."""
    range_locked: bool = False
    """Both under the lock, around the change (``pmdp_clear_flush_notify``, ``pmdp_splitting_flush_notify``)."""
    page_locked: bool = False
    """``invalidate_page`` under the lock (``ptep_clear_flush_notify``)."""
    change_pte: bool = False
    """``set_pte_at_notify`` under the lock."""
    fallback: bool = False
    """``change_pte`` calls ``invalidate_page`` of a subscriber that lacks it."""
    page_unlocked: bool = False
    """``invalidate_page`` after the lock, before the page is released."""
    event: Event = Event.CLEAR
    """What a range is said to be (6.12; 3.x callbacks do not hear it)."""
    lazy: bool = False
    """The range starts at the first populated entry, and not at all without one."""
    flush_last: bool = False
    """The CPU TLB is flushed after the end (mmu_gather), not before it."""


SILENT = Notify()
"""The era has the operation and does not notify: a gap."""
RANGE, RANGE_LOCKED = Notify(range=True), Notify(range_locked=True)
PAGE_LOCKED, PAGE_UNLOCKED = Notify(page_locked=True), Notify(page_unlocked=True)
SET_PTE_AT_NOTIFY = Notify(change_pte=True, fallback=True)
RANGE_CHANGE_PTE = Notify(range=True, change_pte=True)
GATHER = Notify(range=True, flush_last=True)


def _range(event: Event, lazy: bool = False, flush_last: bool = False) -> Notify:
    return Notify(range=True, event=event, lazy=lazy, flush_last=flush_last)


@dataclass(frozen=True, slots=True)
class Site:
    """One call site: the kernel function (3.x and 6.12 name), and where it notifies in each era; None: not there."""

    name: str
    function: str
    function_612: str
    v36: Notify | None
    seed: Notify | None
    v37: Notify | None
    v612: Notify | None
    what: str = ""
    """The operations it serves."""

    def in_era(self, era: str) -> Notify | None:
        """Where it notifies in an era of :data:`ERAS`."""
        return {"v3.6": self.v36, "v3.6+srcu": self.v36, "v3.7-seed": self.seed, "v3.7": self.v37}.get(era, self.v612)


def _always(name: str, function: str, form: Notify, v612: Notify | None, what: str, function_612: str = "") -> Site:
    """A site that the seed series did not change."""
    return Site(name, function, function_612 or function, form, form, form, v612, what)


def _since(name: str, function: str, event: Event, what: str, flush_last: bool = False) -> Site:
    """A site that 3.x has not got."""
    return Site(name, "", function, None, None, None, _range(event, flush_last=flush_last), what)


SITES: dict[str, Site] = {
    site.name: site
    for site in (
        # odp.md 1.3, in its order
        Site("xip_unmap", "__xip_unmap", "", PAGE_LOCKED, PAGE_UNLOCKED, PAGE_UNLOCKED, None,
             "an execute-in-place file gets a real page where its sparse page was mapped"),
        Site("huge_wp_fallback", "do_huge_pmd_wp_page_fallback", "__split_huge_pmd", RANGE_LOCKED, RANGE, RANGE, RANGE,
             "COW of a huge page, 512 small ones instead of a huge one"),
        Site("huge_wp", "do_huge_pmd_wp_page", "do_huge_pmd_wp_page", RANGE_LOCKED, RANGE, RANGE, None,
             "COW of a huge page to a huge page"),
        Site("split_huge", "__split_huge_page_splitting", "__split_huge_pmd", RANGE_LOCKED, RANGE, RANGE, RANGE,
             "a huge mapping becomes 512 small ones"),
        Site("collapse", "collapse_huge_page", "collapse_huge_page", RANGE_LOCKED, RANGE, RANGE, RANGE,
             "khugepaged replaces 512 small pages"),
        _always("hugetlb_unmap", "__unmap_hugepage_range", GATHER, GATHER, "munmap of hugetlb memory",
                "unmap_hugepage_range"),
        Site("hugetlb_cow", "hugetlb_cow", "hugetlb_wp", RANGE_LOCKED, RANGE, RANGE, RANGE, "COW of a hugetlb page"),
        _always("hugetlb_fork", "copy_hugetlb_page_range", SILENT, RANGE, "fork of hugetlb memory"),
        _always("fork", "copy_page_range", RANGE, _range(Event.PROTECTION_PAGE), "fork"),
        Site("cow", "do_wp_page", "wp_page_copy", SET_PTE_AT_NOTIFY,
             Notify(change_pte=True, fallback=True, page_unlocked=True), RANGE_CHANGE_PTE, RANGE, "copy on write"),
        _always("unmap", "unmap_vmas", GATHER, _range(Event.UNMAP, flush_last=True), "munmap, exit"),
        _always("zap", "zap_page_range", GATHER, GATHER, "DONTNEED, truncation, hole punch", "zap_page_range_single"),
        _always("mremap", "move_page_tables", RANGE, _range(Event.UNMAP), "mremap that moves"),
        Site("mkclean", "page_mkclean_one", "page_vma_mkclean_one", PAGE_LOCKED, PAGE_UNLOCKED, PAGE_UNLOCKED,
             _range(Event.PROTECTION_PAGE), "writeback cleans a shared file page"),
        Site("unmap_one", "try_to_unmap_one", "try_to_unmap_one", PAGE_LOCKED, PAGE_UNLOCKED, PAGE_UNLOCKED, RANGE,
             "reclaim, memory failure"),
        Site("unmap_cluster", "try_to_unmap_cluster", "", PAGE_LOCKED, RANGE, RANGE, None,
             "reclaim in a nonlinear area"),
        # odp.md 1.4: there in 2012, not touched by the seed
        _always("mprotect", "mprotect_fixup", RANGE, _range(Event.PROTECTION_VMA, lazy=True, flush_last=True),
                "mprotect", "change_pud_range"),
        _always("remap_file_pages", "remap_file_pages", RANGE, None, "a nonlinear mapping"),
        Site("ksm_protect", "write_protect_page", "write_protect_page", SET_PTE_AT_NOTIFY, SET_PTE_AT_NOTIFY,
             RANGE_CHANGE_PTE, RANGE, "KSM looks at a page"),
        Site("ksm_replace", "replace_page", "replace_page", SET_PTE_AT_NOTIFY, SET_PTE_AT_NOTIFY, RANGE_CHANGE_PTE,
             RANGE, "KSM merges a page"),
        Site("uprobe", "__replace_page", "__replace_page", SET_PTE_AT_NOTIFY, SET_PTE_AT_NOTIFY, RANGE_CHANGE_PTE,
             RANGE, "uprobes replaces a page"),
        Site("migrate", "try_to_unmap_one", "try_to_migrate_one", PAGE_LOCKED, PAGE_UNLOCKED, PAGE_UNLOCKED, RANGE,
             "migration, compaction, NUMA migration"),
        Site("hugetlb_mprotect", "hugetlb_change_protection", "hugetlb_change_protection", RANGE, RANGE, RANGE,
             _range(Event.PROTECTION_VMA), "mprotect of hugetlb memory"),
        Site("hugetlb_mremap", "", "move_hugetlb_page_tables", None, None, None, RANGE, "mremap of hugetlb memory"),
        # odp.md 1.5: later than 3.x
        _since("madvise_free", "madvise_free_single_vma", Event.CLEAR, "MADV_FREE", flush_last=True),
        Site("numa_hint", "", "change_pud_range", None, None, None,
             _range(Event.PROTECTION_VMA, lazy=True, flush_last=True), "NUMA balancing scan"),
        Site("uffd_wp", "", "change_pud_range", None, None, None,
             _range(Event.PROTECTION_VMA, lazy=True, flush_last=True), "userfaultfd write-protect"),
        _since("uffd_move", "move_pages_pte", Event.CLEAR, "userfaultfd MOVE"),
        _since("uffd_move_huge", "move_pages_huge_pmd", Event.CLEAR, "userfaultfd MOVE of a huge page"),
        _since("wp_clean", "wp_clean_pre_vma", Event.PROTECTION_PAGE, "dirty tracking of a shared mapping"),
        _since("hugetlb_unshare", "hugetlb_unshare_pmds", Event.CLEAR, "hugetlb page tables are unshared"),
        _since("collapse_pte_mapped", "collapse_pte_mapped_thp", Event.CLEAR, "a file's huge page is mapped whole"),
        _since("retract", "retract_page_tables", Event.CLEAR, "khugepaged drops a file's page tables"),
        _since("device_private", "migrate_vma_collect", Event.MIGRATE, "migration to device-private memory"),
        _since("device_exclusive", "page_make_device_exclusive_one", Event.EXCLUSIVE, "exclusive access of a device"),
        _since("oom_reap", "__oom_reap_task_mm", Event.UNMAP, "the OOM reaper, not blockable", flush_last=True),
        _since("clear_refs", "clear_refs_write", Event.SOFT_DIRTY, "/proc/pid/clear_refs soft-dirty", flush_last=True),
        _since("pagemap_scan", "pagemap_scan", Event.PROTECTION_VMA, "PAGEMAP_SCAN write-protect"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Discipline:
    """One kernel era."""

    name: str
    rcu_walk: bool = False
    """The chain is walked under ``rcu_read_lock``, so no callback may sleep."""
    interval: bool = False
    """Interval notifiers exist; ``invalidate_page`` and ``change_pte`` do not."""
    fork_copies_pinned: bool = False
    """fork gives the child a copy of a pinned page at once, and the parent keeps its own."""
    huge_pages_612: bool = False
    """Huge pages as in 6.12: one mapping splits without the page; the pair of munmap and DONTNEED covers hugetlb; areas
    for THP are aligned; hugetlb memory can be discarded and moved."""
    sites: dict[str, Notify] = field(default_factory=dict)
    """By name of :data:`SITES`; those that the era has."""

    def need_modern(self, what: str) -> None:
        """:raises NotInThisKernel: ``what`` came after 3.7."""
        if not self.interval:
            raise NotInThisKernel(f"{what}: {self.name} has no such thing")

    def site(self, name: str) -> Notify:
        """Where a site notifies. :raises NotInThisKernel: it does not exist in this era."""
        if name not in self.sites:
            site = SITES[name]
            raise NotInThisKernel(f"{site.what} ({site.function or site.function_612}): {self.name} has no such thing")
        return self.sites[name]

    def lock_held(self, name: str) -> str:
        """The lock under which a site's callbacks run, in which no subscriber may sleep; empty: none (odp.md 1.3)."""
        form = self.sites[name]
        if form.range_locked or form.page_locked or (form.change_pte and form.fallback):
            return "page_table_lock"
        return "rcu_read_lock" if self.rcu_walk and (form.range or form.page_unlocked) else ""


def _era(name: str, **facts: bool) -> Discipline:
    sites = {site.name: form for site in SITES.values() if (form := site.in_era(name)) is not None}
    return Discipline(name, sites=sites, **facts)


DISCIPLINES: dict[str, Discipline] = {
    d.name: d
    for d in (
        _era("v3.6", rcu_walk=True),
        _era("v3.6+srcu"),
        _era("v3.7-seed"),
        _era("v3.7"),
        _era("v6.12", interval=True, fork_copies_pinned=True, huge_pages_612=True),
    )
}


def discipline(name: str) -> Discipline:
    """The discipline called ``name``."""
    if name not in DISCIPLINES:
        raise ValueError(f"discipline {name!r} is unknown: one of {', '.join(DISCIPLINES)}")
    return DISCIPLINES[name]


class Invalidation:
    """One use of a call site on bytes [start, end) of ``mm``: its five places.

    ``frames``: what the device must not use afterwards (frame ids; none: the operation stamps by itself).
    ``operation``: the name in events and reports. :raises NotInThisKernel: the era lacks the site.
    """

    __slots__ = ("_notify", "_range", "frames", "mm", "operation")

    def __init__(self, mm: AddressSpace, site: str, start: int, end: int, operation: str,
                 frames: np.ndarray | int | None = None) -> None:  # fmt: skip
        self.mm, self.operation, self.frames = mm, operation, frames
        self._notify = mm.host.discipline.site(site)
        self._range = NotifierRange(mm, start, end, self._notify.event, operation)
        mm.host.notified.add((where(mm.host.thread)[0] or operation, site))  # as lock reports name it

    @property
    def lazy(self) -> bool:
        """Only a populated range is notified."""
        return self._notify.lazy

    @property
    def clears(self) -> bool:
        """The range is said to be gone, not protected."""
        return self._notify.event == Event.CLEAR

    @property
    def owner(self) -> object | None:
        """The subscriber that asked for it and may skip it (MIGRATE, EXCLUSIVE)."""
        return self._range.owner

    @owner.setter
    def owner(self, owner: object | None) -> None:
        self._range.owner = owner

    @property
    def flush_last(self) -> bool:
        """Flush the CPU TLB after :meth:`end`."""
        return self._notify.flush_last

    def start(self, blockable: bool = True) -> Steps[bool]:
        """Before the page-table lock. False: not blockable, and a subscriber would have had to sleep."""
        if not self._notify.range:
            return True
        self._range.blockable = blockable
        started = yield from invalidate_range_start(self._range)
        if started:
            self._stamp(ours=0)  # without the lock: the entry may be another one by now
        return started

    def clearing(self) -> Steps[None]:
        """Under the lock, before the entry changes."""
        if self._notify.range_locked:
            yield from invalidate_range_start(self._range)
            self._stamp()

    def cleared(self, entry: int = 0) -> Steps[None]:
        """Under the lock, the entry cleared and the CPU TLB flushed; it will be ``entry``."""
        if self._notify.range_locked:
            yield from invalidate_range_end(self._range)
        if self._notify.page_locked:
            yield from self._pages()
        if self._notify.change_pte:
            mm, start = self.mm, self._range.start
            mm.event("change_pte", start, start + PAGE_SIZE, operation=self.operation)
            yield from mm.notifiers.change_pte(start, entry, self._notify.fallback)
            if self._notify.fallback:
                self._stamp()

    def unlocked(self) -> Steps[None]:
        """The lock is dropped, the old page still referenced, the entry changed."""
        if self._notify.page_unlocked:
            yield from self._pages(ours=0)

    def end(self) -> Steps[None]:
        """Last."""
        if self._notify.range:
            yield from invalidate_range_end(self._range)

    def _pages(self, ours: int = 1) -> Steps[None]:
        mm = self.mm
        for address in range(self._range.start, self._range.end, PAGE_SIZE):
            mm.event("notifier_page", address, address + PAGE_SIZE, operation=self.operation)
            yield from mm.notifiers.invalidate_page(address)
        self._stamp(ours)

    def _stamp(self, ours: int = 1) -> None:
        """``ours``: 1 as long as the mapping that goes is in the page's mapcount."""
        if self.frames is None:
            return
        if isinstance(self.frames, int):
            self.mm.stamp_page(self.frames, self.operation, self._range.start, self._range.end, ours)
        else:
            self.mm.stamp_invalidated(self.frames, self.operation, self._range.start, self._range.end, ours)
