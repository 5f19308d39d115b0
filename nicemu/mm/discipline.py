"""Where mm operations notify, per kernel era: strategy objects. Operations have one implementation and call these.

Range operations (munmap, zap, fork, mprotect, mremap) call ``invalidate_range_start/end`` outside the page-table lock
in every era here; eras differ in how the chain is walked (RCU or SRCU) and in the page-level operations, the COW
break (``do_wp_page``) and reclaim (``try_to_unmap_one``). Those have four places, a method of :class:`PageNotify`
each::

    start                    before the page-table lock            range form
      [lock] clear, flush CPU TLB
    locked                   under the page-table lock             v3.6, change_pte
      [unlock]
    unlocked                 before the page may be freed          page form of the seed series
    end                                                            range form

Page-level callbacks give the stamp of the DMA sanitizer when they have returned and the entry is changed; the range
form when ``start`` has returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.notifier import Event, NotifierRange, invalidate_range_end, invalidate_range_start
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


@dataclass(frozen=True, slots=True)
class PageNotify:
    """Where a page-level operation notifies."""

    range: bool = False
    """``invalidate_range_start`` before the lock, ``invalidate_range_end`` after it."""
    page_locked: bool = False
    """``invalidate_page`` under the lock (``ptep_clear_flush_notify``)."""
    change_pte: bool = False
    """``set_pte_at_notify`` under the lock."""
    fallback: bool = False
    """``change_pte`` calls ``invalidate_page`` of a subscriber that lacks it."""
    page_unlocked: bool = False
    """``invalidate_page`` after the lock, before the page is released."""

    def start(self, mm: AddressSpace, address: int, frame: int, operation: str) -> Steps[None]:
        """Before the page-table lock."""
        if self.range:
            yield from invalidate_range_start(self._range(mm, address, operation))
            mm.stamp_page(frame, operation)

    def locked(self, mm: AddressSpace, address: int, frame: int, entry: int, operation: str) -> Steps[None]:
        """The entry is cleared, the lock held."""
        if self.page_locked:
            yield from self._page(mm, address, frame, operation)
        if self.change_pte:
            mm.event("change_pte", address, address + PAGE_SIZE, operation=operation)
            yield from mm.notifiers.change_pte(address, entry, self.fallback)
            if self.fallback:
                mm.stamp_page(frame, operation)

    def unlocked(self, mm: AddressSpace, address: int, frame: int, operation: str) -> Steps[None]:
        """The lock is dropped, the old page still referenced."""
        if self.page_unlocked:
            yield from self._page(mm, address, frame, operation)

    def end(self, mm: AddressSpace, address: int, operation: str) -> Steps[None]:
        """Last."""
        if self.range:
            yield from invalidate_range_end(self._range(mm, address, operation))

    def _page(self, mm: AddressSpace, address: int, frame: int, operation: str) -> Steps[None]:
        mm.event("notifier_page", address, address + PAGE_SIZE, operation=operation)
        yield from mm.notifiers.invalidate_page(address)
        mm.stamp_page(frame, operation)

    @staticmethod
    def _range(mm: AddressSpace, address: int, operation: str) -> NotifierRange:
        return NotifierRange(mm, address, address + PAGE_SIZE, Event.CLEAR, operation)


@dataclass(frozen=True, slots=True)
class Discipline:
    """One kernel era."""

    name: str
    rcu_walk: bool
    """The chain is walked under ``rcu_read_lock``, so no callback may sleep."""
    cow: PageNotify
    reclaim: PageNotify
    interval: bool = False
    """Interval notifiers exist."""
    mprotect_lazy: bool = False
    """``change_pud_range`` starts the notifier at the first populated entry, and not at all without one."""
    mprotect_flush_last: bool = False
    """The CPU TLB is flushed after the notifier's end (mmu_gather), not before it."""
    fork_copies_pinned: bool = False
    """fork gives the child a copy of a pinned page at once, and the parent keeps its own."""


_LOCKED, _UNLOCKED, _RANGE = PageNotify(page_locked=True), PageNotify(page_unlocked=True), PageNotify(range=True)
_SET_PTE_AT_NOTIFY = PageNotify(change_pte=True, fallback=True)

DISCIPLINES: dict[str, Discipline] = {
    d.name: d
    for d in (
        Discipline("v3.6", rcu_walk=True, cow=_SET_PTE_AT_NOTIFY, reclaim=_LOCKED),
        Discipline("v3.6+srcu", rcu_walk=False, cow=_SET_PTE_AT_NOTIFY, reclaim=_LOCKED),
        Discipline("v3.7-seed", rcu_walk=False,
                   cow=PageNotify(change_pte=True, fallback=True, page_unlocked=True), reclaim=_UNLOCKED),
        Discipline("v3.7", rcu_walk=False, cow=PageNotify(range=True, change_pte=True), reclaim=_UNLOCKED),
        Discipline("v6.12", rcu_walk=False, cow=_RANGE, reclaim=_RANGE, interval=True, mprotect_lazy=True,
                   mprotect_flush_last=True, fork_copies_pinned=True),
    )
}  # fmt: skip


def discipline(name: str) -> Discipline:
    """The discipline called ``name``."""
    if name not in DISCIPLINES:
        raise ValueError(f"discipline {name!r} is unknown: one of {', '.join(DISCIPLINES)}")
    return DISCIPLINES[name]
