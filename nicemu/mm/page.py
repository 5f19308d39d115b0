"""``struct page``: the host's view of FRAME rows, as columns.

Scalars go through memoryviews (a third of the cost of indexing a numpy array), batches through the arrays.

    refcount   one per page-table entry that maps the page, one per pin, one while reclaim isolates it, one of the
               page cache (the swap cache counts none: a page leaves it when it is freed)
    mapcount   page-table entries that map it
    pins       how many pinned MRs hold it (a column of our own, committed where something is pinned)
    flags      PG_*
    va         ``page->index``: page number within its anon_vma or file
    address_space   ``page->mapping``: number of its anon_vma, or of its file (PG_FILE)

The zero page is not counted: like Linux's it is a special entry.
"""

from __future__ import annotations

import errno as errno_names
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory import frame_rows
from nicemu.memory.frames import Frames
from nicemu.tables.records import FrameKind
from nicemu.tables.world import lazy_zeros

PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
EHWPOISON = 133
MODEL, ARENA, PROGRAM = int(FrameKind.MODEL), int(FrameKind.ARENA), int(FrameKind.PROGRAM)
"""Kinds as plain ints: enum attributes are slow."""
PG_DIRTY, PG_WRITEBACK, PG_FILE, PG_KSM, PG_HWPOISON, PG_MLOCKED = 1, 2, 4, 8, 16, 32
PG_HEAD, PG_TAIL, PG_HUGETLB, PG_SWAPCACHE, PG_ISOLATED, PG_ANON_EXCLUSIVE = 64, 128, 256, 512, 1024, 2048
PG_LAZYFREE, PG_DEVICE_PRIVATE, PG_IDLE, PG_UNEVICTABLE = 4096, 8192, 16384, 32768
"""Page flags, 16 of them. PG_UNEVICTABLE: storage itself (XIP, DAX), nothing that reclaim could free or move."""


class Fault(OSError):
    """A page that cannot be resolved; ``address`` says which, ``signal`` what a program gets that touches it."""

    signal = "SIGSEGV"

    def __init__(self, errno: int, address: int, why: str = "") -> None:
        super().__init__(errno, why or os.strerror(errno))
        self.address = address

    @classmethod
    def bus_error(cls, address: int, why: str = "") -> Fault:
        """EFAULT at ``address``, as a device and a system call see it; SIGBUS for a program (VM_FAULT_SIGBUS)."""
        fault = cls(errno_names.EFAULT, address, why or "beyond the end of the file")
        fault.signal = "SIGBUS"
        return fault

    @classmethod
    def bad_address(cls, address: int, why: str = "") -> Fault:
        """EFAULT at ``address``."""
        return cls(errno_names.EFAULT, address, why)


class Pages:
    """Columns of the frame table and the counts of ``struct page``."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.free_huge: Callable[[np.ndarray], None] | None = None
        """Where PG_HUGETLB pages go when they are freed; None: there are none."""
        rows = frames.table.view(np.ndarray)
        self.refcounts, self.mapcounts, self.all_flags = rows["refcount"], rows["mapcount"], rows["flags"]
        self.pointers, self.kinds, self.slots = rows["pointer"], rows["kind"], rows["slot"]
        self.indices, self.anon_vmas = rows["va"], rows["address_space"]
        self.all_pins = lazy_zeros(len(rows), np.int32)
        self.pins = self.all_pins.data
        self.refcount, self.mapcount = memoryview(self.refcounts), memoryview(self.mapcounts)
        self.flags, self.pointer, self.kind = (
            memoryview(self.all_flags), memoryview(self.pointers), memoryview(self.kinds))  # fmt: skip
        self.index, self.anon_vma = memoryview(self.indices), memoryview(self.anon_vmas)
        memory = frames.model_bytes
        self._contents = memory[: len(memory) // PAGE_SIZE * PAGE_SIZE].reshape(-1, PAGE_SIZE)
        self.groups: list[Any] = []
        """Memory control groups: each hears of freed frames."""
        self.delete_from_swap_cache: Callable[[int], None] = lambda frame: None
        """What a page of the swap cache needs before it is freed."""

    def pinned(self, frame: int) -> bool:
        """``page_maybe_dma_pinned``: a pinned MR holds the page."""
        return self.pins[frame] > 0

    def get(self, frame: int) -> None:
        """``get_page``."""
        self.refcount[frame] += 1

    def put(self, frame: int) -> bool:
        """``put_page``: drop a reference; True if that freed the page."""
        count = self.refcount[frame] - 1
        assert count >= 0, f"frame {frame}: reference count below zero"
        self.refcount[frame] = count
        if count == 0:
            for group in self.groups:
                group.uncharge(np.array([frame]))
            if self.flags[frame] & PG_SWAPCACHE:
                self.delete_from_swap_cache(frame)
            if self.free_huge is not None and self.flags[frame] & PG_HUGETLB:
                self.free_huge(np.array([frame]))
            else:
                self.frames.free(frame)
        return count == 0

    def put_many(self, frames: np.ndarray) -> np.ndarray:
        """Drop one reference of each frame, as often as it occurs; gives those that were freed."""
        if len(frames) == 1:
            return frames if self.put(int(frames[0])) else frames[:0]
        freed = np.empty(len(frames), np.int64)
        count = frame_rows.put(self.frames.world, frames, freed)
        assert count >= 0, "reference count below zero"
        freed = freed[:count]
        if len(freed):
            for group in self.groups:
                group.uncharge(freed)
            for frame in freed[(self.all_flags[freed] & PG_SWAPCACHE) != 0].tolist():
                self.delete_from_swap_cache(frame)
            self._free_many(freed)
        return freed

    def _free_many(self, freed: np.ndarray) -> None:
        if self.free_huge is not None:
            huge = (self.all_flags[freed] & PG_HUGETLB) != 0
            self.free_huge(freed[huge])
            freed = freed[~huge]
        self.frames.free_many(freed)

    def pin(self, frames: np.ndarray) -> None:
        """``pin_user_pages``: a reference that keeps reclaim away."""
        np.add.at(self.refcounts, frames, 1)
        np.add.at(self.all_pins, frames, 1)

    def pin_page(self, frame: int) -> None:
        """:meth:`pin` of one page."""
        self.refcount[frame] += 1
        self.pins[frame] += 1

    def unpin(self, frames: np.ndarray | Sequence[int]) -> None:
        """``unpin_user_pages``; a page that nobody maps any more is freed."""
        frames = np.asarray(frames, np.int64)
        assert (self.all_pins[frames] > 0).all(), "unpin of a page that is not pinned"
        np.subtract.at(self.all_pins, frames, 1)
        self.put_many(frames)

    def contents(self, frames: np.ndarray) -> np.ndarray:
        """A copy of the bytes of model frames (uint8, 4096 a row)."""
        rows: np.ndarray = self._contents[self.slots[frames]]
        return rows

    def set_contents(self, frames: np.ndarray, rows: np.ndarray) -> None:
        """Write model frames (uint8, 4096 a row)."""
        self._contents[self.slots[frames]] = rows

    def copy(self, source: int, destination: int) -> None:
        """``copy_user_highpage``: only model frames have bytes of their own to move."""
        if self.kind[destination] == MODEL:
            self.frames.bytes_of(destination)[:] = self.frames.bytes_of(source)
