"""The frame table: id -> bytes of a page, for all memory kinds.

A frame points at its real address only while it is current. When the page is unmapped, COW-broken, evicted or
migrated the id is re-pointed at a poisoned graveyard page: a stale device read returns poison, a stale write is lost.
A page that is pinned goes on instead, with its bytes, in a page of its own. Model frames own a page of simulated RAM
(``slots.py``).

Freed ids rest in a queue of at least ``QUARANTINE`` before they are used again.
"""

from __future__ import annotations

import ctypes
import struct

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory import frame_rows, safe_copy
from nicemu.memory.frame_ids import FrameIds
from nicemu.memory.slots import POISON as POISON
from nicemu.memory.slots import Slots
from nicemu.tables.records import FRAME, FrameKind
from nicemu.tables.world import World, address_of, lazy_bytes

QUARANTINE = 1 << 16
FREE, MODEL = int(FrameKind.FREE), int(FrameKind.MODEL)
ROW = struct.Struct("@" + "".join(FRAME[name].char for name in FRAME.names or ()))
"""A row, field by field."""
ROW_BYTES = FRAME.itemsize


class OutOfFrames(Exception):
    """No free frame: the caller must reclaim."""


class Frames:
    """Allocation and re-pointing of frames. ``ram_pages`` bounds all frames allocated at once, of any kind."""

    def __init__(self, world: World, ram_pages: int, model_pages: int = 0) -> None:
        self.world, self.table, self.ram_pages = world, world.frame, ram_pages
        self.slots = Slots(model_pages)
        self.model_bytes = self.slots.bytes
        self._rows = world.frame.view(np.ndarray)
        self._row_bytes = self._rows.view(np.uint8).data
        self._pointer = self._rows["pointer"]
        # single fields through memoryviews: a third of the cost of numpy scalars
        self._generation_of, self._pointer_of, self._kind_of, self._refcount_of, self._slot_of = (
            memoryview(self._rows[name]) for name in ("generation", "pointer", "kind", "refcount", "slot")
        )
        stamps = world.frame_stamp.view(np.ndarray)
        self._invalidated, self._protected, self._operation = (
            stamps[name] for name in ("invalidated", "protected", "operation"))  # fmt: skip
        self._of_a_life = [memoryview(stamps[name]) for name in stamps.dtype.names]
        self._stamp = world.control.view(np.ndarray)["stamp"]
        self._next = 1
        self._resting = FrameIds(len(self._rows))
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
        self._kept: dict[int, np.ndarray] = {}
        """Pages of frames that outlived their place in the program, by frame."""

    @property
    def ids(self) -> int:
        """Ids below this have been given out."""
        return self._next

    @property
    def available(self) -> int:
        """Frames that can be allocated before reclaim is needed."""
        return self.ram_pages - self.allocated

    def allocate(self, kind: FrameKind, pointer: int = 0) -> int:
        """A frame with one reference. ``pointer``: host address (arena and program pages); model frames get zeroed
        simulated RAM.

        :raises OutOfFrames: ``ram_pages`` are allocated.
        """
        if self.allocated >= self.ram_pages:
            raise OutOfFrames(f"all {self.ram_pages} frames are in use")
        slot = 0
        if kind == MODEL:
            self._need_slots(1)
            slot = self.slots.take()
            pointer = self.slots.base + slot * PAGE_SIZE
        frame = self._take_id()
        generation = self._generation_of[frame] + 1
        # refcount 1, no place, no mappings, no flags
        ROW.pack_into(self._row_bytes, frame * ROW_BYTES, pointer, 0, generation, slot, 1, 0, 0, 0, kind, 0)
        self.allocated += 1
        if self.allocated > self.peak:
            self.peak = self.allocated
        return frame

    def allocate_many(self, kind: FrameKind, count: int, pointers: np.ndarray | int = 0) -> np.ndarray:
        """``count`` frames with one reference each (int64 ids); all of them or none.

        :raises OutOfFrames: fewer than ``count`` are left.
        """
        if count == 1:
            pointer = pointers if isinstance(pointers, int) else int(pointers[0])
            return np.array([self.allocate(kind, pointer)])
        if self.allocated + count > self.ram_pages:
            raise OutOfFrames(f"{self.available} of {self.ram_pages} frames are free, {count} wanted")
        values = np.zeros((2, count), np.int64)
        values[0] = pointers
        if kind == MODEL:
            self._need_slots(count)
            values[1] = slots = self.slots.take_many(count)
            values[0] = self.slots.base + slots * PAGE_SIZE
        frames = self._take_ids(count)
        frame_rows.begin(self.world, frames, values, int(kind))
        self.allocated += count
        self.peak = max(self.peak, self.allocated)
        return frames

    def _take_id(self) -> int:
        if len(self._resting) > QUARANTINE or self._next >= len(self._rows):
            frame = self._resting.pop()
            for column in self._of_a_life:
                if column[frame]:  # else it may never have been committed
                    column[frame] = 0
            return frame
        self._next += 1
        return self._next - 1

    def _take_ids(self, count: int) -> np.ndarray:
        """As :meth:`_take_id` so many times."""
        rested = self._resting.pop_many(min(count, max(len(self._resting) - QUARANTINE, 0)))
        fresh = min(count - len(rested), len(self._rows) - self._next)
        self._next += fresh
        new = np.arange(self._next - fresh, self._next)
        if fresh == count:
            return new
        return np.concatenate([rested, new, self._resting.pop_many(count - fresh - len(rested))])

    def _need_slots(self, count: int) -> None:
        if self.slots.free < count:
            raise OutOfFrames(f"all {self.slots.pages} model pages are in use")

    def slot_address(self, slot: int) -> int:
        """Host address of a page of simulated RAM."""
        return self.slots.base + slot * PAGE_SIZE

    def bytes_of(self, frame: int) -> np.ndarray:
        """The bytes of a model frame (uint8, 4096)."""
        assert self._kind_of[frame] == MODEL, f"frame {frame} is not a model frame"
        return self.slots.page(self._slot_of[frame])

    def read(self, frame: int, offset: int, length: int) -> bytes:
        """Bytes of a frame of any kind; fewer if the program took the page away."""
        pointer = self._pointer_of[frame]
        if self._kind_of[frame] == MODEL or pointer == self.graveyard:
            return ctypes.string_at(pointer + offset, length)
        return safe_copy.read(pointer + offset, length)

    def write(self, frame: int, offset: int, data: bytes) -> None:
        """Into a frame of any kind; lost if it is not current any more, or the program took the page away."""
        pointer = self._pointer_of[frame]
        if pointer == self.graveyard:
            return
        if self._kind_of[frame] == MODEL:
            ctypes.memmove(pointer + offset, data, len(data))
        else:
            safe_copy.write(pointer + offset, data)

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

    def keep(self, frame: int) -> None:
        """The page leaves the program, but is pinned: it goes on, with its bytes, where only devices find it. A page
        that the program took away already has no bytes to save."""
        found = self.read(frame, 0, PAGE_SIZE)
        if len(found) < PAGE_SIZE:
            self.retire(frame)
            return
        page = self._kept[frame] = lazy_bytes(PAGE_SIZE)
        page[:] = np.frombuffer(found, np.uint8)
        self._pointer_of[frame] = address_of(page)

    def free(self, frame: int) -> None:
        """Free: re-point, move the generation on, give simulated RAM back, quarantine the id."""
        if self._kind_of[frame] == MODEL:
            self.slots.give(self._slot_of[frame])
        self._pointer_of[frame] = self.graveyard
        self._kept.pop(frame, None)
        self._generation_of[frame] += 1
        self._kind_of[frame] = FREE
        self._resting.push(frame)
        self.allocated -= 1

    def free_many(self, frames: np.ndarray) -> None:
        """:meth:`free` for distinct frames."""
        slots = np.empty(len(frames), np.int64)
        self.slots.give_many(slots[: frame_rows.end(self.world, frames, self.graveyard, slots)])
        for frame in self._kept.keys() & set(frames.tolist()) if self._kept else ():
            del self._kept[frame]
        self._resting.push_many(frames)
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
