"""The frame table: id -> bytes of a page, for all memory kinds.

A frame points at its real address only while it is current. When the page is unmapped, COW-broken, evicted or
migrated the id is re-pointed at a poisoned graveyard page: a stale device read returns poison, a stale write is lost.
Model frames own a page of simulated RAM, which is poisoned when it is freed.

Freed ids rest in a queue of at least ``QUARANTINE`` before they are used again.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.tables.records import FrameKind
from nicemu.tables.world import World, address_of, lazy_bytes

QUARANTINE = 1 << 16
FREE, MODEL = int(FrameKind.FREE), int(FrameKind.MODEL)
POISON = 0xDB
"""Byte that graveyard pages and freed model frames are filled with."""


class OutOfFrames(Exception):
    """No free frame: the caller must reclaim."""


class Frames:
    """Allocation and re-pointing of frames. ``ram_pages`` bounds all frames allocated at once, of any kind."""

    def __init__(self, world: World, ram_pages: int, model_pages: int = 0) -> None:
        self.world, self.table, self.ram_pages = world, world.frame, ram_pages
        self.model_bytes = lazy_bytes(model_pages * PAGE_SIZE)
        self._slot_pages = self.model_bytes[: model_pages * PAGE_SIZE].reshape(model_pages, PAGE_SIZE)
        self._slots_base = address_of(self.model_bytes)
        self._rows = world.frame.view(np.ndarray)
        self._generation, self._pointer, self._kind = (
            self._rows[name] for name in ("generation", "pointer", "kind"))  # fmt: skip
        # single fields through memoryviews: a third of the cost of numpy scalars
        self._generation_of, self._pointer_of, self._kind_of, self._refcount_of, self._slot_of = (
            memoryview(self._rows[name]) for name in ("generation", "pointer", "kind", "refcount", "slot")
        )
        self._slot, self._invalidated, self._protected, self._operation = (
            self._rows[name] for name in ("slot", "invalidated", "protected", "operation"))  # fmt: skip
        self._stamp = world.control.view(np.ndarray)["stamp"]
        self._slots_free: list[int] = []
        self._slot_next, self._slot_count = 0, model_pages
        self._next = 1
        self._free: deque[int] = deque()
        self.allocated = 0
        self.peak = 0
        graveyard = lazy_bytes(2 * PAGE_SIZE)
        graveyard[:PAGE_SIZE] = POISON
        self._graveyard = graveyard
        self.graveyard = address_of(graveyard)
        """A poisoned page that stale reads see."""
        self.lost = self.graveyard + PAGE_SIZE
        """A page that swallows stale writes."""
        self._operations: list[str] = ["none"]

    @property
    def ids(self) -> int:
        """Ids below this have been given out."""
        return self._next

    @property
    def available(self) -> int:
        """Frames that can be allocated before reclaim is needed."""
        return self.ram_pages - self.allocated

    def allocate(self, kind: FrameKind, pointer: int = 0, canonical: int = 0) -> int:
        """A frame with one reference. ``pointer``: host address (arena and program pages); model frames get zeroed
        simulated RAM.

        :raises OutOfFrames: ``ram_pages`` are allocated.
        """
        if self.allocated >= self.ram_pages:
            raise OutOfFrames(f"all {self.ram_pages} frames are in use")
        slot = 0
        if kind == MODEL:
            slot = self._take_slot()
            pointer = self.slot_address(slot)
        frame = self._take_id()
        generation = self._generation_of[frame] + 1
        # pointer, generation, kind, slot, refcount, then zeros up to canonical
        self._rows[frame] = (pointer, generation, kind, slot, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, canonical)
        self.allocated += 1
        self.peak = max(self.peak, self.allocated)
        return frame

    def allocate_many(
        self, kind: FrameKind, count: int, pointers: np.ndarray | int = 0, canonical: np.ndarray | int = 0
    ) -> np.ndarray:
        """``count`` frames with one reference each (int64 ids); all of them or none.

        :raises OutOfFrames: fewer than ``count`` are left.
        """
        if count == 1:
            pointer, name = (value if isinstance(value, int) else int(value[0]) for value in (pointers, canonical))
            return np.array([self.allocate(kind, pointer, name)])
        if self.allocated + count > self.ram_pages:
            raise OutOfFrames(f"{self.available} of {self.ram_pages} frames are free, {count} wanted")
        rows = np.zeros(count, self._rows.dtype)
        if kind == MODEL:
            rows["slot"] = slots = self._take_slots(count)
            pointers = self.slot_address(0) + slots * PAGE_SIZE
        frames = self._take_ids(count)
        rows["pointer"], rows["kind"], rows["refcount"], rows["canonical"] = pointers, kind, 1, canonical
        rows["generation"] = self._generation[frames] + 1
        self._rows[frames] = rows
        self.allocated += count
        self.peak = max(self.peak, self.allocated)
        return frames

    def _take_id(self) -> int:
        if len(self._free) > QUARANTINE or self._next >= len(self._rows):
            return self._free.popleft()
        self._next += 1
        return self._next - 1

    def _take_ids(self, count: int) -> np.ndarray:
        if len(self._free) > QUARANTINE or self._next + count > len(self._rows):
            return np.fromiter((self._take_id() for _ in range(count)), np.int64, count)
        self._next += count
        return np.arange(self._next - count, self._next)

    def _take_slots(self, count: int) -> np.ndarray:
        reused = min(count, len(self._slots_free))
        if self._slot_next + count - reused > self._slot_count:
            raise OutOfFrames(f"all {self._slot_count} model pages are in use")
        slots = np.empty(count, np.int64)
        if reused:
            slots[:reused] = self._slots_free[-reused:]
            del self._slots_free[-reused:]
        slots[reused:] = np.arange(self._slot_next, self._slot_next + count - reused)
        self._slot_next += count - reused
        self._slot_pages[slots[:reused]] = 0  # the others have never been written
        return slots

    def _take_slot(self) -> int:
        if self._slots_free:
            slot = self._slots_free.pop()
        elif self._slot_next < self._slot_count:
            slot = self._slot_next
            self._slot_next += 1
        else:
            raise OutOfFrames(f"all {self._slot_count} model pages are in use")
        self.slot_bytes(slot)[:] = 0
        return slot

    def slot_address(self, slot: int) -> int:
        """Host address of a page of simulated RAM."""
        return self._slots_base + slot * PAGE_SIZE

    def slot_bytes(self, slot: int) -> np.ndarray:
        """A page of simulated RAM (uint8, 4096)."""
        return self.model_bytes[slot * PAGE_SIZE : (slot + 1) * PAGE_SIZE]

    def bytes_of(self, frame: int) -> np.ndarray:
        """The bytes of a model frame (uint8, 4096)."""
        assert self._kind_of[frame] == MODEL, f"frame {frame} is not a model frame"
        page: np.ndarray = self._slot_pages[self._slot_of[frame]]
        return page

    def get(self, frame: int) -> None:
        """Take a reference."""
        self._refcount_of[frame] += 1

    def put(self, frame: int) -> bool:
        """Drop a reference; True if that freed the frame."""
        refcount = self._refcount_of[frame] - 1
        self._refcount_of[frame] = refcount
        if refcount == 0:
            self.free(frame)
            return True
        return False

    def retire(self, frame: np.ndarray | int) -> None:
        """Re-point at the graveyard: the page's bytes are no longer this frame's (it may still be referenced)."""
        self._pointer[frame] = self.graveyard

    def free(self, frame: int) -> None:
        """Free: re-point, move the generation on, poison simulated RAM, quarantine the id."""
        if self._kind_of[frame] == MODEL:
            slot = self._slot_of[frame]
            self._slot_pages[slot] = POISON
            self._slots_free.append(slot)
        self._pointer_of[frame] = self.graveyard
        self._generation_of[frame] += 1
        self._kind_of[frame] = FREE
        self._free.append(frame)
        self.allocated -= 1

    def free_many(self, frames: np.ndarray) -> None:
        """:meth:`free` for distinct frames."""
        slots = self._slot[frames[self._kind[frames] == MODEL]]
        self._slot_pages[slots] = POISON
        self._slots_free.extend(slots.tolist())
        self._pointer[frames] = self.graveyard
        self._generation[frames] += 1
        self._kind[frames] = FREE
        self._free.extend(frames.tolist())
        self.allocated -= len(frames)

    # Stamps for the DMA sanitizer --------------------------------------------------------------------------------

    def operation_index(self, name: str) -> int:
        """Number of an mm operation's name, for FRAME.operation."""
        if name not in self._operations:
            self._operations.append(name)
        return self._operations.index(name)

    def operation_name(self, index: int) -> str:
        """The name behind FRAME.operation."""
        return self._operations[index]

    def next_stamp(self) -> int:
        """A new mm stamp."""
        stamp = int(self._stamp[0]) + 1
        self._stamp[0] = stamp
        return stamp

    def stamp_invalidated(self, frames: np.ndarray | list[int] | int, operation: str) -> None:
        """An invalidation of these pages has returned: translations made before now are stale."""
        self._invalidated[frames] = self.next_stamp()
        self._operation[frames] = self.operation_index(operation)

    def stamp_protected(self, frames: np.ndarray | list[int] | int, operation: str) -> None:
        """These pages are write-protected and every device was told: older write translations are stale."""
        self._protected[frames] = self.next_stamp()
        self._operation[frames] = self.operation_index(operation)
