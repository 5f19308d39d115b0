"""Frame ids that rest after their frame was freed, first in first out."""

from __future__ import annotations

import numpy as np

from nicemu.tables.world import lazy_zeros


class FrameIds:
    """Ids of freed frames, at most ``capacity``, each at most once. Memory is committed when touched."""

    def __init__(self, capacity: int) -> None:
        size = 1 << max(capacity - 1, 1).bit_length()
        self._ring: np.ndarray = lazy_zeros(size, np.int64)
        self._item, self._mask = self._ring.data, size - 1
        self._head = self._tail = 0

    def __len__(self) -> int:
        return self._tail - self._head

    def push(self, frame: int) -> None:
        """Begin one's rest."""
        self._item[self._tail & self._mask] = frame
        self._tail += 1

    def pop(self) -> int:
        """The one that rested longest."""
        self._head += 1
        return self._item[self._head - 1 & self._mask]

    def push_many(self, frames: np.ndarray) -> None:
        """Begin the rest of many, in order."""
        at = self._tail & self._mask
        first = min(len(frames), self._mask + 1 - at)
        self._ring[at : at + first] = frames[:first]
        self._ring[: len(frames) - first] = frames[first:]
        self._tail += len(frames)

    def push_front(self, frames: np.ndarray) -> None:
        """These are next, in order: they never had a use to rest from."""
        self._head -= len(frames)
        self._ring[np.arange(self._head, self._head + len(frames)) & self._mask] = frames

    def resting(self) -> np.ndarray:
        """A copy of all, the one that rested longest first."""
        frames: np.ndarray = self._ring[np.arange(self._head, self._tail) & self._mask]
        return frames

    def keep(self, frames: np.ndarray) -> None:
        """Only these go on resting."""
        self._head = self._tail = 0
        self.push_many(frames)

    def pop_many(self, count: int) -> np.ndarray:
        """The ``count`` that rested longest, in order."""
        places = np.arange(self._head, self._head + count) & self._mask
        self._head += count
        frames: np.ndarray = self._ring[places]
        return frames
