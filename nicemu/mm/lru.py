"""The list of reclaimable pages: first in, first out, in a ring.

An entry is alive if it is its frame's newest; dead ones are skipped. Left out: active and inactive lists (a page whose
accessed bit is set gets a second chance instead), a list per memory cgroup (:meth:`Lru.oldest` searches this one).
"""

from __future__ import annotations

import numpy as np


class Lru:
    """Frames in the order they came."""

    def __init__(self, frames: int) -> None:
        self._ring = np.zeros(1 << 12, np.int64)
        self._places: np.ndarray = np.zeros(frames, np.int64)
        self._place = self._places.data
        self._head = self._tail = 1

    def __len__(self) -> int:
        return self._tail - self._head

    def add(self, frame: int) -> None:
        """Put a frame at the tail."""
        if len(self) == len(self._ring):
            self._compact(1)
        self._ring[self._tail & len(self._ring) - 1] = frame
        self._place[frame] = self._tail
        self._tail += 1

    def add_many(self, frames: np.ndarray) -> None:
        """Put frames at the tail, in order."""
        if len(self) + len(frames) > len(self._ring):
            self._compact(len(frames))
        places = np.arange(self._tail, self._tail + len(frames))
        self._ring[places & len(self._ring) - 1] = frames
        self._places[frames] = places
        self._tail += len(frames)

    def take(self, wanted: int) -> np.ndarray:
        """Take the oldest frames off the list, at most ``wanted``."""
        while len(self):
            places = np.arange(self._head, min(self._head + wanted, self._tail))
            frames = self._ring[places & len(self._ring) - 1]
            self._head += len(places)
            live: np.ndarray = frames[self._places[frames] == places]
            if len(live):
                self._places[live] = 0
                return live
        return np.empty(0, np.int64)

    def oldest(self, wanted: int, chosen: np.ndarray) -> np.ndarray:
        """Take the oldest frames with ``chosen[frame]`` (bool) off the list, at most ``wanted``; the rest stay."""
        places = np.arange(self._head, self._tail)
        frames = self._ring[places & len(self._ring) - 1]
        found: np.ndarray = frames[(self._places[frames] == places) & chosen[frames]][:wanted]
        self._places[found] = 0
        return found

    def drop(self, frame: int) -> None:
        """Take a frame off the list."""
        self._place[frame] = 0

    def drop_many(self, frames: np.ndarray) -> None:
        """Take frames off the list."""
        self._places[frames] = 0

    def _compact(self, more: int) -> None:
        places = np.arange(self._head, self._tail)
        frames = self._ring[places & len(self._ring) - 1]
        live = frames[self._places[frames] == places]
        size = len(self._ring)
        while size < 2 * (len(live) + more):
            size *= 2
        self._ring = np.zeros(size, np.int64)
        self._head = self._tail = self._tail  # places never repeat
        places = np.arange(self._tail, self._tail + len(live))
        self._ring[places & size - 1] = live
        self._places[live] = places
        self._tail += len(live)
