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
from nicemu.memory import frame_rows
from nicemu.memory.frames import MODEL, Frames, OutOfFrames


class Blocks:
    """Allocation of blocks out of a frame table."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.lists: dict[int, deque[int]] = {}
        """First frames of free blocks, by order."""

    def allocate(self, order: int) -> int:
        """First frame of a zeroed block, one reference each.

        :raises OutOfFrames: too few pages are free, or no block is whole.
        """
        frames, count = self.frames, 1 << order
        if frames.available < count:
            raise OutOfFrames(f"{frames.available} of {frames.ram_pages} frames are free, {count} wanted")
        frames._need_slots(count)
        head = self._take(order)
        self._begin(head, frames.slots.take_many(count))
        frames.allocated += count
        frames.peak = max(frames.peak, frames.allocated)
        return head

    def _begin(self, head: int, slots: np.ndarray) -> None:
        values = np.stack([self.frames.slot_address(0) + slots * PAGE_SIZE, slots])
        frame_rows.begin(self.frames.world, head + np.arange(len(slots)), values, MODEL)

    def park(self, head: int, count: int) -> None:
        """A pool's block is free: nobody's translation leads to its bytes any more."""
        rows = self.frames._rows[head : head + count]
        rows["pointer"] = self.frames.graveyard
        rows["generation"] += 1
        rows["refcount"] = rows["mapcount"] = 0

    def unpark(self, head: int, count: int) -> None:
        """A parked block is used: zeroed, one reference each."""
        self._begin(head, self.frames._rows["slot"][head : head + count].astype(np.int64))

    def clear(self, head: int, count: int) -> None:
        """Zero the bytes of a block."""
        self.frames.slots.clear(self.frames._rows["slot"][head : head + count])

    def _take(self, order: int) -> int:
        """A block of free ids. Those skipped to get to a multiple go to the front of the free ones."""
        frames, count = self.frames, 1 << order
        aligned = -(-frames._next // count) * count
        if aligned + count <= len(frames._rows):
            frames._resting.push_front(np.arange(frames._next, aligned))
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
        ids = frames._resting.resting()
        spare[ids[ids < len(spare)]] = True
        whole = np.flatnonzero(spare.reshape(-1, count).all(1))
        whole = whole[: max(1, (len(ids) - frames.ram_pages) // (2 * count))]
        frames._resting.keep(ids[~np.isin(ids // count, whole)])
        heads: list[int] = (whole * count).tolist()
        return heads
