"""Blocks of consecutive frames: 2**order ids from a multiple of 2**order on, for huge pages of model memory.

A device's translation of a huge page names the first frame and counts on from it, so the ids must be consecutive; the
pages of simulated RAM behind them need not be. Blocks come from ids that were never used, then from a free list per
order, which is filled by looking for whole blocks among the freed ids (frames are freed one by one).

A hugetlb pool keeps its blocks when they are freed: such a block is parked. Its frames count as allocated and point at
the graveyard; its bytes stay as they are until it is used again.

Left out: compaction, moving pages away to make a block.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.memory.frames import MODEL, Frames, OutOfFrames

CHUNK = 512
"""Frames whose bytes are cleared at once."""


class Blocks:
    """Allocation of blocks out of a frame table."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.lists: dict[int, deque[int]] = {}
        """First frames of free blocks, by order."""

    def allocate(self, order: int, canonical: int = 0) -> int:
        """First frame of a zeroed block, one reference each; ``canonical`` names the first page, the others follow.

        :raises OutOfFrames: too few pages are free, or no block is whole.
        """
        frames, count = self.frames, 1 << order
        slots_left = len(frames._slots_free) + frames._slot_count - frames._slot_next
        if min(frames.available, slots_left) < count:
            raise OutOfFrames(f"{frames.available} of {frames.ram_pages} frames are free, {count} wanted")
        head = self._take(order)
        slots = frames._take_slots(count)
        rows = frames._rows[head : head + count]
        generations = rows["generation"] + 1
        rows[:] = np.zeros(count, rows.dtype)
        rows["generation"], rows["slot"] = generations, slots
        rows["pointer"] = frames.slot_address(0) + slots * PAGE_SIZE
        rows["kind"], rows["refcount"] = MODEL, 1
        rows["canonical"] = canonical + np.arange(count)
        frames.allocated += count
        frames.peak = max(frames.peak, frames.allocated)
        return head

    def park(self, head: int, count: int) -> None:
        """A pool's block is free: nobody's translation leads to its bytes any more."""
        rows = self.frames._rows[head : head + count]
        rows["pointer"] = self.frames.graveyard
        rows["generation"] += 1
        rows["refcount"] = rows["mapcount"] = 0

    def unpark(self, head: int, count: int, canonical: int) -> None:
        """A parked block is used: zeroed, one reference each."""
        frames, rows = self.frames, self.frames._rows[head : head + count]
        generations, slots = rows["generation"].copy(), rows["slot"].copy()
        rows[:] = np.zeros(count, rows.dtype)
        rows["generation"], rows["slot"], rows["kind"], rows["refcount"] = generations, slots, MODEL, 1
        rows["pointer"] = frames.slot_address(0) + slots * PAGE_SIZE
        rows["canonical"] = canonical + np.arange(count)

    def clear(self, head: int, count: int) -> None:
        """Zero the bytes of a block."""
        slots = self.frames._rows["slot"][head : head + count]
        for at in range(0, count, CHUNK):
            self.frames._slot_pages[slots[at : at + CHUNK]] = 0

    def _take(self, order: int) -> int:
        """A block of free ids. Those skipped to get to a multiple go to the front of the free ones."""
        frames, count = self.frames, 1 << order
        aligned = -(-frames._next // count) * count
        if aligned + count <= len(frames._rows):
            frames._free.extendleft(range(aligned - 1, frames._next - 1, -1))
            frames._next = aligned + count
            return aligned
        free = self.lists.setdefault(order, deque())
        if not free:
            free.extend(self._whole(order))
        if not free:
            raise OutOfFrames(f"no {count} consecutive frames are free")
        return free.popleft()

    def _whole(self, order: int) -> list[int]:
        """Take whole blocks out of the freed ids, as many as single frames can do without."""
        frames, count = self.frames, 1 << order
        spare = np.zeros(len(frames._rows) // count * count, bool)
        ids = np.array(frames._free, np.int64)
        spare[ids[ids < len(spare)]] = True
        found = np.flatnonzero(spare.reshape(-1, count).all(1)) * count
        found = found[: max(1, (len(ids) - frames.ram_pages) // (2 * count))]
        taken = set(found.tolist())
        frames._free = deque(frame for frame in ids.tolist() if frame - frame % count not in taken)
        heads: list[int] = found.tolist()
        return heads
