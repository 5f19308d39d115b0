"""Operations that go over all entries of a range and change their bits between one ``range_start`` and its end
(``change_protection``, ``madvise_free_pte_range``, ``clear_refs_pte_range``, ``pagemap_scan_pmd_entry``).

One page-table lock section and one yield a leaf. Where the site is lazy nothing is notified without a leaf there; the
CPU TLB is flushed before the end or after it, as the site has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.discipline import Invalidation
from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_table import PFN_SHIFT, PRESENT, WRITE
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

Change = Callable[[int, np.ndarray], np.ndarray]
"""Of the number of the first page and the entries from there on: what the entries become. Under the page-table lock."""


def change_entries(mm: AddressSpace, site: str, start: int, end: int, change: Change) -> Steps[int]:
    """Let ``change`` have every leaf of [start, end) in turn; gives how many entries changed.

    :raises NotInThisKernel: the era lacks the site.
    """
    notify = Invalidation(mm, site, start, end, site)
    if notify.lazy and not mm.populated(start, end):
        return 0
    yield from notify.start()
    if notify.clears:
        mm.stamp_range(start, end, site)
    changed = 0
    for a, b in mm.page_table.spans(start >> PAGE_SHIFT, -(-end >> PAGE_SHIFT)):
        changed += yield from _change_leaf(mm, site, (a, b), change)
    if changed and not notify.flush_last:
        yield from _flush(mm, start, end, site)
    yield from notify.end()
    if changed and notify.flush_last:
        yield from _flush(mm, start, end, site)
    return changed


def _change_leaf(mm: AddressSpace, site: str, span: tuple[int, int], change: Change) -> Steps[int]:
    a, b = span
    yield from mm.page_table_lock.acquire(mm.host.thread)
    view = mm.page_table.view(a, b)
    new = change(a, view)
    lost = view & ~new
    mm.stamp_invalidated(view[(lost & PRESENT) != 0] >> PFN_SHIFT, site)
    mm.stamp_protected(view[(lost & (PRESENT | WRITE)) == WRITE] >> PFN_SHIFT, site)
    changed = int(np.count_nonzero(view != new))
    view[:] = new
    mm.event("pte_protect", a << PAGE_SHIFT, b << PAGE_SHIFT, operation=site, present=changed)
    mm.page_table_lock.release(mm.host.thread)
    yield mm.host.costs.pte_ns * changed
    return changed


def _flush(mm: AddressSpace, start: int, end: int, site: str) -> Steps[None]:
    mm.flush_tlb(start, end, site)
    yield mm.host.costs.tlb_flush_ns
