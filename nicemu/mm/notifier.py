"""The mmu notifier chain (``mmu_notifier.c``): subscribers that mirror an address space's page tables.

:class:`NotifierChain` is the hlist of ``mmu_notifier_register``. It is walked under ``rcu_read_lock`` (v3.6), where a
callback that sleeps is reported, or inside one global SRCU section. Interval notifiers stand in ``interval.py``;
:func:`invalidate_range_start` and :func:`invalidate_range_end` serve both, interval tree first, as 6.12 does.

Rules that a caller or a subscriber breaks are reports (``Host.reports``, kind ``warning``) where Linux has a WARN.
Linux marks only the callbacks of the chain as non-blocking; the rule is the same for intervals, so theirs are marked as
well. Callbacks that an era lacks are never called in it: ``invalidate_page`` and ``change_pte`` are of 3.x,
``clear_young`` and ``arch_invalidate_secondary_tlbs`` of 6.12.

Left out: the event and flags of a range in chain callbacks (they get start, end and whether they may block);
``mm_take_all_locks`` (ranges in flight are counted from the start instead, so a subscriber may come at any time).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self

from nicemu.mm.lock_report import SUBSCRIBER
from nicemu.mm.locks import NON_BLOCK, RCU_READ
from nicemu.mm.notifier_rules import check_no_vm_lock, invalid
from nicemu.timeline.host import Completion, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host

ADDRESS_END = 1 << 64


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
    """``struct mmu_notifier`` and its ops. Every callback has a default that does nothing, and one that is not
    overridden is not called. Callbacks that give Steps are generators and may sleep where the discipline lets them.
    Those under the page-table lock never sleep; they are plain functions, or generators if they take a spinlock."""

    name = "subscriber"
    users = 0
    """References, of :meth:`NotifierChain.get`; 1 after ``register``."""

    @classmethod
    def alloc_notifier(cls, mm: AddressSpace) -> Self:
        """A new one for ``mm``, for :meth:`NotifierChain.get`. Must not sleep."""
        return cls()

    def free_notifier(self) -> None:
        """After the last :meth:`NotifierChain.put`, when no callback runs any more."""

    def invalidate_range_start(self, mm: AddressSpace, start: int, end: int, blockable: bool) -> Steps[bool]:
        """Stop using [start, end) until the end; False only if not blockable and it would have to sleep. Who ever
        gives False has no ``invalidate_range_end``."""
        yield from ()
        return True

    def invalidate_range_end(self, mm: AddressSpace, start: int, end: int) -> Steps[None]:
        """The pages may be used anew. Ranges nest and run in parallel: count them."""
        yield from ()

    def invalidate_page(self, mm: AddressSpace, address: int) -> Steps[None]:
        """3.x: the page at ``address`` has gone from the page table."""
        yield from ()

    def arch_invalidate_secondary_tlbs(self, mm: AddressSpace, start: int, end: int) -> None:
        """6.12, for devices that walk the CPU's tables: flush the secondary TLB where the CPU's is flushed. Not
        together with range_start or range_end."""

    def change_pte(self, mm: AddressSpace, address: int, pte: int) -> Steps[None] | None:
        """3.x: the page table will hold ``pte``. Under the page-table lock, so it never sleeps."""

    def clear_flush_young(self, mm: AddressSpace, address: int) -> Steps[bool] | bool:
        """Was the page accessed? Forget it, and flush. Under the page-table lock."""
        return False

    def clear_young(self, mm: AddressSpace, address: int) -> Steps[bool] | bool:
        """6.12: the same without a flush."""
        return False

    def test_young(self, mm: AddressSpace, address: int) -> Steps[bool] | bool:
        """Was the page accessed? Changes nothing."""
        return False

    def release(self, mm: AddressSpace) -> Steps[None]:
        """The address space goes: drop everything. May run at the same time as other callbacks."""
        yield from ()


def implements(subscriber: NotifierSubscriber, callback: str) -> bool:
    """Is the callback overridden?"""
    return getattr(type(subscriber), callback) is not getattr(NotifierSubscriber, callback)


class NotifierChain:
    """Subscribers of one address space, newest first (``hlist_add_head``)."""

    def __init__(self, mm: AddressSpace) -> None:
        self.mm, self.host = mm, mm.host
        self.subscribers: list[NotifierSubscriber] = []

    # Registration -----------------------------------------------------------------------------------------------------

    def register(self, subscriber: NotifierSubscriber) -> Steps[None]:
        """``mmu_notifier_register``: takes mmap_lock for write; the caller holds no lock of the VM.

        :raises OSError: EINVAL: the address space is being torn down (a BUG in Linux); both
            ``arch_invalidate_secondary_tlbs`` and range callbacks.
        """
        thread, lock = self.host.thread, self.mm.mmap_lock
        check_no_vm_lock(self.mm, "mmu_notifier_register")
        yield from lock.acquire_write(thread)
        try:
            self._register(subscriber)
        finally:
            lock.release(thread)

    def _register(self, subscriber: NotifierSubscriber) -> None:
        """``__mmu_notifier_register``, mmap_lock held for write."""
        both = implements(subscriber, "arch_invalidate_secondary_tlbs") and (
            implements(subscriber, "invalidate_range_start") or implements(subscriber, "invalidate_range_end")
        )
        if both and self.host.discipline.interval:
            raise invalid(self.mm, "mmu_notifier_register",
                          f"{subscriber.name} has arch_invalidate_secondary_tlbs and range callbacks")  # fmt: skip
        self.mm.intervals.init()
        subscriber.users = 1
        self.subscribers.insert(0, subscriber)

    def unregister(self, subscriber: NotifierSubscriber) -> Steps[None]:
        """``mmu_notifier_unregister``: its release runs if it is on the list still; afterwards no callback runs."""
        if subscriber in self.subscribers:
            yield from self._walk("release", lambda s: s.release(self.mm), [subscriber])
            self._unlink(subscriber)
        yield from self.host.srcu.synchronize(self.host.thread)

    def get(self, ops: type[NotifierSubscriber]) -> Steps[NotifierSubscriber]:
        """``mmu_notifier_get``: the one subscriber of this kind, made if there is none. :raises OSError: EINVAL."""
        thread, lock = self.host.thread, self.mm.mmap_lock
        check_no_vm_lock(self.mm, "mmu_notifier_get")
        yield from lock.acquire_write(thread)
        try:
            found = next((s for s in self.subscribers if type(s) is ops), None)
            if found is None:
                found = ops.alloc_notifier(self.mm)
                self._register(found)
            else:
                found.users += 1
        finally:
            lock.release(thread)
        return found

    def put(self, subscriber: NotifierSubscriber) -> None:
        """``mmu_notifier_put``: the last one takes it off the list; it is freed after a grace period, in its own time.
        Does not call release, and may be called from it."""
        if not subscriber.users:
            self.host.lockdep.warn(self.host.thread, "mmu_notifier_put", f"{subscriber.name} has no users")
            return
        subscriber.users -= 1
        if not subscriber.users:
            self._unlink(subscriber)
            freed = Completion(self.host.scheduler, f"mmu_notifier_free_rcu of {subscriber.name}")
            self.host.notifiers_to_free.append(freed)
            self.host.scheduler.spawn(_free_rcu(self.host, subscriber, freed), "srcu_callbacks")

    def _unlink(self, subscriber: NotifierSubscriber) -> None:
        """``hlist_del_init_rcu``."""
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)

    # Callbacks --------------------------------------------------------------------------------------------------------

    def invalidate_range_start(self, range: NotifierRange) -> Steps[bool]:
        """``mn_hlist_invalidate_range_start``: False (not blockable) after undoing those that succeeded. All are
        called, whoever refuses."""
        started: list[NotifierSubscriber] = []
        refused: list[NotifierSubscriber] = []

        def start(subscriber: NotifierSubscriber) -> Steps[None]:
            ok = yield from subscriber.invalidate_range_start(self.mm, range.start, range.end, range.blockable)
            (started if ok else refused).append(subscriber)

        yield from self._walk("invalidate_range_start", start, block=range.blockable)
        for subscriber in refused:
            self._check_refusal(subscriber, range)
        if not refused or range.blockable:
            return True
        yield from self._end(range, started)
        return False

    def _check_refusal(self, subscriber: NotifierSubscriber, range: NotifierRange) -> None:
        warn, thread, callback = self.host.lockdep.warn, self.host.thread, "invalidate_range_start"
        if range.blockable:
            warn(thread, callback, f"{subscriber.name} refused a blockable invalidation")
        elif implements(subscriber, "invalidate_range_end"):
            warn(thread, callback, f"{subscriber.name} refused, and has an invalidate_range_end")

    def invalidate_range_end(self, range: NotifierRange) -> Steps[None]:
        """``mn_hlist_invalidate_end``."""
        yield from self._end(range, None)

    def _end(self, range: NotifierRange, only: list[NotifierSubscriber] | None) -> Steps[None]:
        yield from self._walk(
            "invalidate_range_end", lambda s: s.invalidate_range_end(self.mm, range.start, range.end), only,
            range.blockable,
        )  # fmt: skip

    def invalidate_page(self, address: int) -> Steps[None]:
        """``mmu_notifier_invalidate_page`` (3.x). Reclaim calls it, so it counts as an invalidation for lockdep."""
        thread, invalidation = self.host.thread, self.host.lockdep.invalidate_range_start
        invalidation.enter(thread)
        try:
            yield from self._walk("invalidate_page", lambda s: s.invalidate_page(self.mm, address))
        finally:
            invalidation.exit(thread)

    def change_pte(self, address: int, pte: int, fallback: bool) -> Steps[None]:
        """``mmu_notifier_change_pte`` (3.x). ``fallback``: who has no change_pte gets invalidate_page instead."""

        def change(subscriber: NotifierSubscriber) -> Steps[None]:
            if implements(subscriber, "change_pte"):
                yield from _steps(subscriber.change_pte(self.mm, address, pte))
            elif fallback:
                yield from subscriber.invalidate_page(self.mm, address)

        yield from self._walk("", change)

    def clear_flush_young(self, address: int) -> Steps[bool]:
        """Did any secondary MMU access the page? All are asked."""
        return (yield from self._young("clear_flush_young", address))

    def clear_young(self, address: int) -> Steps[bool]:
        """6.12: the same without a flush."""
        return (yield from self._young("clear_young", address))

    def test_young(self, address: int) -> Steps[bool]:
        """The same, changing nothing; the first yes is enough."""
        return (yield from self._young("test_young", address))

    def _young(self, callback: str, address: int) -> Steps[bool]:
        young = False

        def ask(subscriber: NotifierSubscriber) -> Steps[None]:
            nonlocal young
            if not (young and callback == "test_young"):
                young |= bool((yield from _steps(getattr(subscriber, callback)(self.mm, address))))

        yield from self._walk(callback, ask)
        return young

    def arch_invalidate_secondary_tlbs(self, start: int, end: int) -> None:
        """6.12: where the CPU's TLB is flushed."""
        for subscriber in tuple(self.subscribers):
            subscriber.arch_invalidate_secondary_tlbs(self.mm, start, end)

    def release(self) -> Steps[None]:
        """``mn_hlist_release``: every subscriber drops everything, then they leave the list; also waits for a release
        that ``unregister`` has called."""
        if self.subscribers:
            yield from self._walk("release", lambda s: s.release(self.mm), end=self.subscribers.clear)
            yield from self.host.srcu.synchronize(self.host.thread)

    def _walk(self, callback: str, call: Callable[[NotifierSubscriber], Steps[Any]],
              only: list[NotifierSubscriber] | None = None, block: bool = True,
              end: Callable[[], None] | None = None) -> Steps[None]:  # fmt: skip
        """Call each subscriber that has ``callback`` inside the section that the discipline walks the chain in, which
        ``end()`` is the last to happen in. One that was unlinked meanwhile is not called any more."""
        subscribers = self.subscribers if only is None else only
        if not subscribers:
            return
        thread, rcu = self.host.thread, self.host.discipline.rcu_walk
        if rcu:
            RCU_READ.enter(thread)
        else:
            index = self.host.srcu.enter(thread)
        try:
            for subscriber in tuple(subscribers):
                if subscriber in self.subscribers and (not callback or implements(subscriber, callback)):
                    yield from called(self.host, subscriber.name, call(subscriber), block)
            if end is not None:
                end()
        finally:
            if rcu:
                RCU_READ.exit(thread)
            else:
                self.host.srcu.exit(index)


def called(host: Host, name: str, steps: Steps[Any], block: bool = True) -> Steps[Any]:
    """A callback of the subscriber ``name``, named in reports; not ``block``: it must not sleep."""
    thread = host.thread
    thread.context.append(SUBSCRIBER + name)
    if not block:
        NON_BLOCK.enter(thread)
    try:
        return (yield from steps)
    finally:
        if not block:
            NON_BLOCK.exit(thread)
        thread.context.pop()


def _steps(answer: Any) -> Steps[Any]:
    """What a callback under the page-table lock gives: it is a generator if it takes a spinlock."""
    if isinstance(answer, Generator):
        return (yield from answer)
    return answer


def _free_rcu(host: Host, subscriber: NotifierSubscriber, freed: Completion) -> Steps[None]:
    """``call_srcu`` and ``mmu_notifier_free_rcu``."""
    yield from host.srcu.synchronize(host.thread)
    subscriber.free_notifier()
    host.notifiers_to_free.remove(freed)
    freed.complete()


def mmu_notifier_synchronize(host: Host) -> Steps[None]:
    """Every subscriber that was put is freed when this returns."""
    yield from list(host.notifiers_to_free)


def invalidate_range_start(range: NotifierRange) -> Steps[bool]:
    """``mmu_notifier_invalidate_range_start``: when it gives True no subscriber uses the range any more. False
    (``_nonblock``): the caller touches no entry and calls no end."""
    mm, host = range.mm, range.mm.host
    thread, invalidation = host.thread, host.lockdep.invalidate_range_start
    mm.event("notifier_start", range.start, range.end, operation=range.operation, thread=thread.number)
    if range.blockable and host.discipline.interval:
        host.lockdep.might_sleep(thread, "mmu_notifier_invalidate_range_start")
    invalidation.enter(thread)
    try:
        ok = yield from mm.intervals.invalidate_start(range)
        if ok:
            ok = yield from mm.notifiers.invalidate_range_start(range)
            if not ok:
                mm.intervals.invalidate_end()
    finally:
        invalidation.exit(thread)
    return ok


def invalidate_range_end(range: NotifierRange) -> Steps[None]:
    """``mmu_notifier_invalidate_range_end``."""
    mm, host = range.mm, range.mm.host
    thread, invalidation = host.thread, host.lockdep.invalidate_range_start
    if range.blockable and host.discipline.interval:
        host.lockdep.might_sleep(thread, "mmu_notifier_invalidate_range_end")
    invalidation.enter(thread)
    try:
        mm.intervals.invalidate_end()
        yield from mm.notifiers.invalidate_range_end(range)
    finally:
        invalidation.exit(thread)
    mm.event("notifier_end", range.start, range.end, operation=range.operation, thread=thread.number)


def mmu_notifier_release(mm: AddressSpace) -> Steps[None]:
    """``__mmu_notifier_release``: the address space has no users; interval notifiers first."""
    mm.event("notifier_release", 0, 0)
    yield from mm.intervals.invalidate_start(NotifierRange(mm, 0, ADDRESS_END, Event.RELEASE, "exit"))
    mm.intervals.invalidate_end()
    yield from mm.notifiers.release()
