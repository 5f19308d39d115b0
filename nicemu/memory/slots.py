"""Pages of simulated RAM: which are free, and that a page is zero when it is taken.

A freed page is poisoned, and zeroed when it is taken again, so that whoever still looks at it sees poison. Pages freed
in runs of ``DISCARD`` or more are given back to the operating system instead (``MADV_DONTNEED``): they read as zero
from then on, and however many there are, those that nobody touched cost nothing. A device sees poison all the same: the
rows of freed frames point at the graveyard.

Left out: poison in pages that were freed in such runs, for readers in the host model itself that kept a view.
"""

from __future__ import annotations

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory import arena
from nicemu.tables.world import address_of, lazy_bytes

POISON = 0xDB
"""Byte that graveyard pages and freed model frames are filled with."""
DISCARD = 64
"""Pages of a run from which on a system call is cheaper than filling (chosen: 64 pages are 256 KiB of stores)."""


class Stack:
    """Slot numbers, last in first out."""

    def __init__(self, capacity: int) -> None:
        self._items: np.ndarray = lazy_bytes(8 * capacity)[: 8 * capacity].view(np.int64)
        self._item = self._items.data
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, item: int) -> None:
        """Put one on top."""
        self._item[self._count] = item
        self._count += 1

    def pop(self) -> int:
        """Take the top one."""
        self._count -= 1
        return self._item[self._count]

    def push_many(self, items: np.ndarray) -> None:
        """Put many on top, the last on the very top."""
        self._items[self._count : self._count + len(items)] = items
        self._count += len(items)

    def pop_many(self, count: int) -> np.ndarray:
        """Up to ``count`` from the top, in the order in which they were put there."""
        first = max(self._count - count, 0)
        items = self._items[first : self._count].copy()
        self._count = first
        return items

    def remove(self, first: int, last: int) -> np.ndarray:
        """Take out those in [first, last)."""
        items = self._items[: self._count].copy()
        inside = (items >= first) & (items < last)
        self._count = 0
        self.push_many(items[~inside])
        removed: np.ndarray = items[inside]
        return removed


class Slots:
    """``pages`` pages of simulated RAM."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.bytes = lazy_bytes(pages * PAGE_SIZE)
        self._page = self.bytes[: pages * PAGE_SIZE].reshape(pages, PAGE_SIZE)
        self.base = address_of(self.bytes)
        """Host address of page 0."""
        self._zero, self._poisoned = Stack(pages), Stack(pages)
        self._next = 0

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return self.pages - self._next + len(self._zero) + len(self._poisoned)

    def page(self, slot: int) -> np.ndarray:
        """The bytes of a page (uint8, 4096)."""
        page: np.ndarray = self._page[slot]
        return page

    def take(self) -> int:
        """A zero page; the caller knows that one is free."""
        if len(self._zero):
            return self._zero.pop()
        if len(self._poisoned):
            slot = self._poisoned.pop()
            self._page[slot] = 0
            return slot
        self._next += 1
        return self._next - 1

    def take_many(self, count: int) -> np.ndarray:
        """``count`` zero pages; the caller knows that so many are free."""
        zero = self._zero.pop_many(count)
        if len(zero) == count:
            return zero
        poisoned = self._poisoned.pop_many(count - len(zero))
        self._page[poisoned] = 0
        fresh = count - len(zero) - len(poisoned)
        self._next += fresh
        return np.concatenate([zero, poisoned, np.arange(self._next - fresh, self._next)])

    def clear(self, slots: np.ndarray) -> None:
        """Pages in use are zero again."""
        for run in np.split(slots, np.flatnonzero(slots[1:] - slots[:-1] != 1) + 1):
            if len(run) < DISCARD:
                self._page[run] = 0
            else:
                self._discard(run)

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        """Bytes of pages to as many others."""
        self._page[targets] = self._page[sources]

    def _discard(self, run: np.ndarray) -> None:
        arena.madvise(self.base + int(run[0]) * PAGE_SIZE, len(run) * PAGE_SIZE, arena.MADV_DONTNEED)

    def give(self, slot: int) -> None:
        """The page is free."""
        self._page[slot] = POISON
        self._poisoned.push(slot)

    def give_many(self, slots: np.ndarray) -> None:
        """These pages are free."""
        if len(slots) < DISCARD:
            self._poison(slots)
            return
        cuts = np.flatnonzero(slots[1:] - slots[:-1] != 1) + 1
        if 4 * len(cuts) > len(slots):
            self._poison(slots)
            return
        for run in np.split(slots, cuts) if len(cuts) else (slots,):
            if len(run) < DISCARD:
                self._poison(run)
            else:
                self._discard(run)
                self._zero.push_many(run)

    def set_aside(self, first: int, last: int) -> np.ndarray:
        """Take the free pages in [first, last) out of use until :meth:`give_back` (``isolate_freepages``); those freed
        later are not among them."""
        fresh = np.arange(self._next, min(last, self.pages)) if first <= self._next else np.empty(0, np.int64)
        self._next += len(fresh)
        return np.concatenate([self._zero.remove(first, last), self._poisoned.remove(first, last), fresh])

    def give_back(self, slots: np.ndarray) -> None:
        """The end of :meth:`set_aside`; whether or not they are zero, they are cleared when they are taken."""
        self._poisoned.push_many(slots)

    def _poison(self, slots: np.ndarray) -> None:
        self._page[slots] = POISON
        self._poisoned.push_many(slots)
