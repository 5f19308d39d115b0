"""A hypervisor's secondary MMU (``virt/kvm/kvm_main.c``, ``arch/x86/kvm/mmu``): sptes, and an mmu_lock.

Callbacks of both eras: ranges are counted (``mmu_invalidate_in_progress``) and each end bumps ``mmu_invalidate_seq``;
``invalidate_page`` and ``change_pte`` (3.x) bump it alone. A guest's fault notes the sequence, faults the page in
without a lock, takes mmu_lock, and starts over if a range is in progress or the sequence moved. With mmu_lock as a
spinlock no callback ever sleeps, so KVM could subscribe before the seed series; with a mutex it could not.

``change_pte`` drops the spte if the new entry is writable and replaces it by a read-only one otherwise (recalled). It
and the young callbacks run under the page-table lock.

Left out: the virtual CPU that spins on a range in progress (it waits for the end here), huge sptes, memory slots (guest
and host addresses are the same), dirty logging, lockless aging (after 6.12).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nicemu.mm.locks import Mutex, SpinLock
from nicemu.mm.notifier import NotifierSubscriber
from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_table import PFN_SHIFT, WRITE
from nicemu.secondary_mmu.non_block import lock
from nicemu.secondary_mmu.translation import Stale, Translation, pages_between, stale, translate
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm import AddressSpace


class Kvm(NotifierSubscriber):
    """One virtual machine whose memory is ``mm``'s. Subscribe it with ``mm.notifiers.register``. ``mmu_lock``:
    :class:`SpinLock` or :class:`Mutex`."""

    name = "kvm"

    def __init__(self, mm: AddressSpace, mmu_lock: type[Mutex] = SpinLock) -> None:
        self.mm, self.host = mm, mm.host
        self.mmu_lock = mmu_lock(mm.host.scheduler, "mmu_lock")
        self.sptes: dict[int, Translation] = {}
        """By page number."""
        self.mmu_seq = self.mmu_in_progress = 0
        self.range = 0, 0
        """What the ranges in progress span, bytes."""
        self.retries = 0
        self._ended: Completion | None = None

    def check(self, settled: bool = False) -> list[Stale]:
        """Translations that should be gone; ``settled``: nothing runs."""
        return stale(self.mm, self.name, self.sptes, settled)

    # The guest --------------------------------------------------------------------------------------------------------

    def access(self, address: int, write: bool) -> Steps[int]:
        """A virtual CPU reads or writes; gives the frame that it reached.

        :raises Fault: the process has no such page (the VM exits to user space with EFAULT).
        """
        page = address >> PAGE_SHIFT
        while True:
            spte = self.sptes.get(page)
            if spte is not None and (spte.writable or not write):
                spte.young = True
                return spte.frame
            yield from self.page_fault(address, write)

    def page_fault(self, address: int, write: bool) -> Steps[None]:
        """``kvm_tdp_page_fault``: returns with the spte made, or after a collision, for the guest to try again; not
        before the end of a range in progress that it collided with."""
        seq = self.mmu_seq
        found = yield from self.mm.fault_in(address & -1 << PAGE_SHIFT, 1, write)
        thread = self.host.thread
        yield self.host.costs.pte_ns  # anything may happen between the lookup and the lock
        yield from self.mmu_lock.acquire(thread)
        if self.mmu_retry(seq, address):
            self.retries += 1
        else:
            entry = int(found[0])
            self.sptes[address >> PAGE_SHIFT] = translate(self.host, entry >> 1, bool(entry & 1))
        self.mmu_lock.release(thread)
        while self._in_progress(address):
            if self._ended is None:
                self._ended = Completion(self.host.scheduler, "invalidations of kvm")
            yield self._ended

    def mmu_retry(self, seq: int, address: int) -> bool:
        """``mmu_invalidate_retry_gfn``, under mmu_lock."""
        return self._in_progress(address) or self.mmu_seq != seq

    def _in_progress(self, address: int) -> bool:
        """A range in progress may have the address; 3.x (``mmu_notifier_retry``) looks at no addresses."""
        start, end = self.range
        return self.mmu_in_progress > 0 and (not self.host.discipline.interval or start <= address < end)

    # Callbacks --------------------------------------------------------------------------------------------------------

    def invalidate_range_start(self, mm: AddressSpace, start: int, end: int, blockable: bool) -> Steps[bool]:
        """``kvm_mmu_notifier_invalidate_range_start``: never fails, whether it may block or not."""
        thread = self.host.thread
        yield from self._lock()
        self.mmu_in_progress += 1
        low, high = self.range
        self.range = (start, end) if self.mmu_in_progress == 1 else (min(low, start), max(high, end))
        yield from self._unmap(start, end)
        self.mmu_lock.release(thread)
        return True

    def invalidate_range_end(self, mm: AddressSpace, start: int, end: int) -> Steps[None]:
        """``kvm_mmu_notifier_invalidate_range_end``."""
        thread = self.host.thread
        yield from self._lock()
        self.mmu_seq += 1
        self.mmu_in_progress -= 1
        self.mmu_lock.release(thread)
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended.complete()

    def invalidate_page(self, mm: AddressSpace, address: int) -> Steps[None]:
        """``kvm_mmu_notifier_invalidate_page``: the page stays allocated until this returns, so a sequence will do."""
        thread = self.host.thread
        yield from self._lock()
        self.mmu_seq += 1
        yield from self._unmap(address, address + (1 << PAGE_SHIFT))
        self.mmu_lock.release(thread)

    def change_pte(self, mm: AddressSpace, address: int, pte: int) -> Steps[None]:
        """``kvm_mmu_notifier_change_pte``."""
        thread, page = self.host.thread, address >> PAGE_SHIFT
        yield from self._lock()
        self.mmu_seq += 1
        if page in self.sptes and pte & WRITE:
            del self.sptes[page]
        elif page in self.sptes:
            self.sptes[page] = translate(self.host, pte >> PFN_SHIFT, False)
        self.mmu_lock.release(thread)

    def clear_flush_young(self, mm: AddressSpace, address: int) -> Steps[bool]:
        """``kvm_mmu_notifier_clear_flush_young``."""
        young = yield from self._age(address, clear=True)
        if young:
            yield self.host.costs.tlb_flush_ns
        return young

    def clear_young(self, mm: AddressSpace, address: int) -> Steps[bool]:
        """``kvm_mmu_notifier_clear_young``: no flush, a stale accessed bit does no harm."""
        return self._age(address, clear=True)

    def test_young(self, mm: AddressSpace, address: int) -> Steps[bool]:
        """``kvm_mmu_notifier_test_young``."""
        return self._age(address, clear=False)

    def release(self, mm: AddressSpace) -> Steps[None]:
        """``kvm_mmu_notifier_release``: ``kvm_flush_shadow_all``."""
        thread = self.host.thread
        yield from self._lock()
        self.sptes.clear()
        yield self.host.costs.tlb_flush_ns
        self.mmu_lock.release(thread)

    def _lock(self) -> Iterable[Any]:
        return lock(self.mmu_lock, self.host.thread)

    def _unmap(self, start: int, end: int) -> Steps[None]:
        """``kvm_unmap_hva_range`` and the flush of the virtual CPUs' TLBs, mmu_lock held."""
        pages = pages_between(self.sptes, start, end)
        for page in pages:
            del self.sptes[page]
        if pages:
            yield self.host.costs.pte_ns * len(pages) + self.host.costs.tlb_flush_ns

    def _age(self, address: int, clear: bool) -> Steps[bool]:
        thread = self.host.thread
        yield from self._lock()
        spte = self.sptes.get(address >> PAGE_SHIFT)
        young = spte is not None and spte.young
        if spte is not None and clear:
            spte.young = False
        self.mmu_lock.release(thread)
        return young
