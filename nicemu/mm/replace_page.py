"""``replace_page``, ``__replace_page``: another page takes the place of one that is mapped (KSM, uprobes).

Under the page-table lock the entry is cleared, the CPU TLB flushed and the new entry set, with the notifiers where the
discipline has ``set_pte_at_notify`` (odp.md 1.4, 1.5). The caller holds a reference to both pages, so nothing is freed
before the notifier has returned.
"""

from __future__ import annotations

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.discipline import Invalidation
from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_table import PFN_SHIFT
from nicemu.mm.rmap import ptep_clear_flush
from nicemu.mm.vma import Vma
from nicemu.timeline.host import Steps


def replace_page(vma: Vma, page: int, entry: int, replacement: int, site: str) -> Steps[bool]:
    """Map the frame of ``replacement`` where ``entry`` is; False if the entry has changed. The new frame gets a
    reference and a mapping more, the old one loses them."""
    mm, address = vma.mm, page << PAGE_SHIFT
    host, operation = mm.host, site.split("_")[0]
    pages, old, new = host.pages, entry >> PFN_SHIFT, replacement >> PFN_SHIFT
    notify = Invalidation(mm, site, address, address + PAGE_SIZE, operation, old)
    yield from notify.start()
    yield from mm.page_table_lock.acquire(host.thread)
    replaced = mm.page_table.get(page) == entry
    if replaced:
        yield from notify.clearing()
        ptep_clear_flush(mm, page, operation)
        yield from notify.cleared(replacement)
        mm.page_table.set(page, replacement)
        mm.event("pte_set", address, address + PAGE_SIZE, operation=operation, old=old, new=new)
        if new != host.zero_frame:
            pages.mapcount[new] += 1
            pages.get(new)
        pages.mapcount[old] -= 1
        pages.put(old)
    mm.page_table_lock.release(host.thread)
    if replaced:
        yield from notify.unlocked()
    yield host.costs.tlb_flush_ns
    yield from notify.end()
    return replaced
