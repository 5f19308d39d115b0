"""The mmu notifier chain (``mmu_notifier.c``): subscribers that mirror an address space's page tables.

:class:`NotifierChain` is the hlist of ``mmu_notifier_register``. It is walked under ``rcu_read_lock`` (v3.6), where a
callback that sleeps is reported, or inside one global SRCU section. Interval notifiers stand in ``interval.py``;
:func:`invalidate_range_start` and :func:`invalidate_range_end` serve both, interval tree first, as 6.12 does.

Left out: ``get``/``put`` references, ``arch_invalidate_secondary_tlbs`` restrictions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from nicemu.mm.locks import SUBSCRIBER
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


class Event(IntEnum):
    """``enum mmu_notifier_event``."""

    UNMAP, CLEAR, PROTECTION_VMA, PROTECTION_PAGE, SOFT_DIRTY, RELEASE, MIGRATE, EXCLUSIVE = range(8)


@dataclass(eq=False, slots=True)
class NotifierRange:
    """``struct mmu_notifier_range``: bytes [start, end)."""

    mm: AddressSpace
    start: int
    end: int
    event: Event
    operation: str
    blockable: bool = True
    owner: object | None = None
    """Who asked for it, of MIGRATE and EXCLUSIVE."""


class NotifierSubscriber:
    """``struct mmu_notifier_ops``. Every callback has a default that does nothing, and one that is not overridden is
    not called. Callbacks that give Steps are generators and may sleep where the discipline lets them."""

    name = "subscriber"

    def invalidate_range_start(self, mm: AddressSpace, start: int, end: int, blockable: bool) -> Steps[bool]:
        """Stop using [start, end) until the end; False only if not blockable and it would have to sleep."""
        yield from ()
        return True

    def invalidate_range_end(self, mm: AddressSpace, start: int, end: int) -> Steps[None]:
        """The pages may be used anew."""
        yield from ()

    def invalidate_page(self, mm: AddressSpace, address: int) -> Steps[None]:
        """3.x: the page at ``address`` has gone from the page table."""
        yield from ()

    def invalidate_range(self, mm: AddressSpace, start: int, end: int) -> None:
        """For devices that walk the CPU's tables: flush the secondary TLB. Under the page-table lock."""

    def change_pte(self, mm: AddressSpace, address: int, pte: int) -> None:
        """3.x: the page table will hold ``pte``. Under the page-table lock, so it never sleeps."""

    def clear_flush_young(self, mm: AddressSpace, address: int) -> bool:
        """Was the page accessed? Under the page-table lock."""
        return False

    def clear_young(self, mm: AddressSpace, address: int) -> bool:
        """Was the page accessed? Forget it, without a flush. Under the page-table lock."""
        return False

    def test_young(self, mm: AddressSpace, address: int) -> bool:
        """Was the page accessed? Under the page-table lock."""
        return False

    def release(self, mm: AddressSpace) -> Steps[None]:
        """The address space goes: drop everything."""
        yield from ()


def implements(subscriber: NotifierSubscriber, callback: str) -> bool:
    """Is the callback overridden?"""
    return getattr(type(subscriber), callback) is not getattr(NotifierSubscriber, callback)


class NotifierChain:
    """Subscribers of one address space, newest first (``hlist_add_head``)."""

    def __init__(self, mm: AddressSpace) -> None:
        self.mm, self.host = mm, mm.host
        self.subscribers: list[NotifierSubscriber] = []

    def register(self, subscriber: NotifierSubscriber) -> Steps[None]:
        """``mmu_notifier_register``: under mmap_lock for write."""
        thread = self.host.thread
        yield from self.mm.mmap_lock.acquire_write(thread)
        self.subscribers.insert(0, subscriber)
        self.mm.mmap_lock.release(thread)

    def unregister(self, subscriber: NotifierSubscriber) -> Steps[None]:
        """``mmu_notifier_unregister``: its release runs if it has not yet; afterwards no callback runs."""
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)
            yield from self._callback(subscriber, subscriber.release(self.mm))
        yield from self.host.srcu.synchronize()

    def invalidate_range_start(self, start: int, end: int, blockable: bool = True) -> Steps[bool]:
        """``mn_hlist_invalidate_range_start``: False (not blockable) after undoing those that succeeded."""
        started: list[NotifierSubscriber] = []
        refused: list[NotifierSubscriber] = []

        def one(subscriber: NotifierSubscriber) -> Steps[None]:
            if refused:
                return
            if (yield from subscriber.invalidate_range_start(self.mm, start, end, blockable)):
                started.append(subscriber)
            else:
                assert not blockable, f"{subscriber.name} refused a blockable invalidation"
                refused.append(subscriber)

        yield from self._walk("invalidate_range_start", one)
        if refused:
            yield from self._walk(
                "invalidate_range_end", lambda s: s.invalidate_range_end(self.mm, start, end), only=started
            )
        return not refused

    def invalidate_range_end(self, start: int, end: int) -> Steps[None]:
        """``mn_hlist_invalidate_end``."""
        yield from self._walk("invalidate_range_end", lambda s: s.invalidate_range_end(self.mm, start, end))

    def invalidate_page(self, address: int) -> Steps[None]:
        """``mmu_notifier_invalidate_page`` (3.x)."""
        yield from self._walk("invalidate_page", lambda s: s.invalidate_page(self.mm, address))

    def change_pte(self, address: int, pte: int, fallback: bool) -> Steps[None]:
        """``mmu_notifier_change_pte`` (3.x). ``fallback``: who has no change_pte gets invalidate_page instead."""

        def one(subscriber: NotifierSubscriber) -> Steps[None]:
            if implements(subscriber, "change_pte"):
                subscriber.change_pte(self.mm, address, pte)
            elif fallback:
                yield from subscriber.invalidate_page(self.mm, address)

        yield from self._walk("", one)

    def clear_flush_young(self, address: int) -> bool:
        """Did any secondary MMU access the page?"""
        young = False
        for subscriber in self.subscribers:
            young |= subscriber.clear_flush_young(self.mm, address)
        return young

    def clear_young(self, address: int) -> bool:
        """``__mmu_notifier_clear_young``."""
        young = False
        for subscriber in self.subscribers:
            young |= subscriber.clear_young(self.mm, address)
        return young

    def test_young(self, address: int) -> bool:
        """``__mmu_notifier_test_young``."""
        return any(subscriber.test_young(self.mm, address) for subscriber in self.subscribers)

    def release(self) -> Steps[None]:
        """``mn_hlist_release``: every subscriber drops everything and leaves the chain."""
        subscribers, self.subscribers = self.subscribers, []
        yield from self._walk("release", lambda s: s.release(self.mm), only=subscribers)
        yield from self.host.srcu.synchronize()

    def _walk(self, callback: str, call: Callable[[NotifierSubscriber], Steps[Any]],
              only: list[NotifierSubscriber] | None = None) -> Steps[None]:  # fmt: skip
        """Call each subscriber that has ``callback`` inside the section that the discipline walks the chain in."""
        subscribers = self.subscribers if only is None else only
        if not subscribers:
            return
        thread, rcu = self.host.thread, self.host.discipline.rcu_walk
        if rcu:
            self.host.rcu.enter(thread)
        else:
            index = self.host.srcu.enter(thread)
        try:
            for subscriber in tuple(subscribers):
                if not callback or implements(subscriber, callback):
                    yield from self._callback(subscriber, call(subscriber))
        finally:
            if rcu:
                self.host.rcu.exit(thread)
            else:
                self.host.srcu.exit(index)

    def _callback(self, subscriber: NotifierSubscriber, steps: Steps[Any]) -> Steps[Any]:
        context = self.host.thread.context
        context.append(SUBSCRIBER + subscriber.name)
        try:
            return (yield from steps)
        finally:
            context.pop()


def invalidate_range_start(range: NotifierRange) -> Steps[bool]:
    """``mmu_notifier_invalidate_range_start``: when it gives True no subscriber uses the range any more."""
    mm = range.mm
    mm.event("notifier_start", range.start, range.end, operation=range.operation)
    ok = yield from mm.intervals.invalidate_start(range)
    if ok:
        ok = yield from mm.notifiers.invalidate_range_start(range.start, range.end, range.blockable)
        if not ok:
            mm.intervals.invalidate_end()
    return ok


def invalidate_range_end(range: NotifierRange) -> Steps[None]:
    """``mmu_notifier_invalidate_range_end``."""
    mm = range.mm
    mm.intervals.invalidate_end()
    yield from mm.notifiers.invalidate_range_end(range.start, range.end)
    mm.event("notifier_end", range.start, range.end, operation=range.operation)
