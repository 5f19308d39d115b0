"""Interval notifiers with collision retry (``mmu_interval_notifier``, 6.12).

Per address space: a sequence that starts at 2, when the first subscriber of any kind comes, and is odd while an
invalidation that overlaps some subscription runs; per subscription: the sequence of the last invalidation that met it,
always odd. A reader takes the latter before it looks at the page table and compares it, under the driver's lock, before
it uses what it saw.

Left out: the tree is a list sorted by start, searched by the longest interval.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sortedcontainers import SortedKeyList

from nicemu.mm.notifier import ADDRESS_END, NotifierRange, called
from nicemu.mm.notifier_rules import check_users
from nicemu.timeline.host import Completion, HostThread, Steps

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace


class IntervalNotifier:
    """``struct mmu_interval_notifier``: a driver subclasses it and overrides :meth:`invalidate`."""

    name = "interval"
    mm: AddressSpace
    start: int
    end: int
    invalidate_seq: int
    order: int

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        """Take the driver's lock, :meth:`set_seq` unconditionally, stop using the overlap. False only if not
        ``range.blockable`` and it would have to sleep."""
        self.set_seq(cur_seq)
        yield from ()
        return True

    def set_seq(self, cur_seq: int) -> None:
        """``mmu_interval_set_seq``: under the driver's lock."""
        self.invalidate_seq = cur_seq

    def read_begin(self) -> Steps[int]:
        """``mmu_interval_read_begin``: waits while an invalidation of this interval runs."""
        return self.mm.intervals.read_begin(self)

    def read_retry(self, seq: int) -> bool:
        """``mmu_interval_read_retry``, under the driver's lock: True means collided, start over."""
        return self.invalidate_seq != seq

    check_retry = read_retry
    """``mmu_interval_check_retry``: a hint, without the lock."""


class IntervalNotifiers:
    """``mm->notifier_subscriptions``: the interval side."""

    def __init__(self, mm: AddressSpace) -> None:
        self.mm, self.host = mm, mm.host
        self.invalidate_seq = 0
        self.active: list[HostThread] = []
        """Who is between start and end, once for each range (``active_invalidate_ranges``)."""
        self._tree: SortedKeyList[IntervalNotifier] = SortedKeyList(key=lambda s: (s.start, s.order))
        self._longest = 0
        self._order = 0
        self._deferred: list[tuple[str, IntervalNotifier]] = []
        self._wake: Completion | None = None

    def __iter__(self) -> Iterator[IntervalNotifier]:
        return iter(self._tree)

    def init(self) -> None:
        """The first subscriber of any kind allocates the subscriptions."""
        self.invalidate_seq = self.invalidate_seq or 2

    @property
    def active_invalidate_ranges(self) -> int:
        """Ranges between their start and their end."""
        return len(self.active)

    @property
    def writing(self) -> bool:
        """``mn_itree_is_invalidating``: an overlapping invalidation runs."""
        return bool(self.invalidate_seq & 1)

    def insert(self, subscription: IntervalNotifier, start: int, length: int) -> None:
        """``mmu_interval_notifier_insert`` for bytes [start, start + length). As it takes mmap_lock the first time,
        the caller may hold nothing that is taken under it.

        :raises RuntimeError: the discipline has no interval notifiers.
        :raises OSError: EOVERFLOW: no such range; EINVAL: the address space is being torn down.
        """
        if not self.host.discipline.interval:
            raise RuntimeError(f"{self.host.discipline.name} has no interval notifiers: use the chain")
        if length <= 0 or start + length > ADDRESS_END:
            raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
        check_users(self.mm, "mmu_interval_notifier_insert")
        if self.host.scheduler.current is not None:
            self.host.lockdep.might_lock(self.host.thread, self.mm.mmap_lock, "down_write")
        self.init()
        self._order += 1
        subscription.mm, subscription.start, subscription.end = self.mm, start, start + length
        subscription.order = self._order
        if self.active_invalidate_ranges and not self.host.broken("insert_not_deferred"):
            if self.writing:
                self._deferred.append(("insert", subscription))
            else:
                self.invalidate_seq |= 1
                self._add(subscription)
            subscription.invalidate_seq = self.invalidate_seq
        else:
            self._add(subscription)
            subscription.invalidate_seq = self.invalidate_seq - 1

    def remove(self, subscription: IntervalNotifier) -> Steps[None]:
        """``mmu_interval_notifier_remove``: not from a callback, nor with a lock that callbacks take; waits for a
        running invalidation."""
        seq = self.invalidate_seq if self.writing else 0
        if ("insert", subscription) in self._deferred:
            self._deferred.remove(("insert", subscription))
            seq = 0
        elif self.writing:
            self._deferred.append(("remove", subscription))
        else:
            self._tree.remove(subscription)
        self._may_wait("mmu_interval_notifier_remove")
        while seq and self.invalidate_seq == seq:
            yield self._waitqueue()

    def read_begin(self, subscription: IntervalNotifier) -> Steps[int]:
        """See :meth:`IntervalNotifier.read_begin`."""
        seq = subscription.invalidate_seq
        self._may_wait("mmu_interval_read_begin")
        while self.invalidate_seq == seq and not self.host.broken("read_begin_does_not_wait"):
            yield self._waitqueue()
        return seq

    def invalidate_start(self, range: NotifierRange) -> Steps[bool]:
        """``mn_itree_invalidate``: every overlapping subscription, in address order."""
        self.active.append(self.host.thread)
        overlapping = self._overlapping(range.start, range.end)
        if not overlapping:
            return True
        self.invalidate_seq |= 1
        cur_seq = self.invalidate_seq
        for subscription in overlapping:
            steps = subscription.invalidate(range, cur_seq)
            ok = yield from called(self.host, subscription.name, steps, range.blockable)
            if not ok and not range.blockable:
                self.invalidate_end()
                return False
            self._check_callback(subscription, cur_seq, ok)
        return True

    def _check_callback(self, subscription: IntervalNotifier, cur_seq: int, ok: bool) -> None:
        warn, thread = self.host.lockdep.warn, self.host.thread
        if not ok:
            warn(thread, "invalidate", f"{subscription.name} refused a blockable invalidation")
        elif subscription.invalidate_seq != cur_seq:
            warn(thread, "mmu_interval_set_seq", f"{subscription.name} did not set the sequence")

    def invalidate_end(self) -> None:
        """``mn_itree_inv_end``: the last one makes the sequence even, applies what was deferred, wakes readers."""
        self.active.remove(self.host.thread)
        if (self.active and not self.host.broken("end_of_one_is_end_of_all")) or not self.writing:
            return
        self.invalidate_seq += 1
        deferred, self._deferred = self._deferred, []
        for what, subscription in deferred:
            if what == "insert":
                self._add(subscription)
            else:
                self._tree.remove(subscription)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.complete()

    def _may_wait(self, what: str) -> None:
        """Check for the wait for callbacks, whether or not it comes: their locks must not be held."""
        thread, lockdep = self.host.thread, self.host.lockdep
        if thread.atomic:
            lockdep.atomic_sleep(thread, what)
        lockdep.might_lock(thread, lockdep.invalidate_range_start, what)

    def _waitqueue(self) -> Completion:
        if self._wake is None:
            self._wake = Completion(self.host.scheduler, "mmu_notifier wait queue", lambda: self.active)
        return self._wake

    def _add(self, subscription: IntervalNotifier) -> None:
        self._tree.add(subscription)
        self._longest = max(self._longest, subscription.end - subscription.start)

    def _overlapping(self, start: int, end: int) -> list[IntervalNotifier]:
        if not self._tree:
            return []
        near = self._tree.irange_key((start - self._longest, 0), (end, 0))
        return [subscription for subscription in near if subscription.end > start and subscription.start < end]
