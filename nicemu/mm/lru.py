"""The lists of reclaimable pages: inactive and active (``lruvec``), each first in, first out.

A new page is inactive. If it is found used when reclaim comes to it, it stays once (PG_referenced) and becomes active
the second time; active pages become inactive again while there are more of them than of the others. These are the rules
of 6.12 for anonymous memory below 1 GiB (``folio_check_references``, ``inactive_is_low``; recalled), taken for every
era: 3.x made new pages active. Left out: lists of files, unevictable pages, the workingset, multi-generation LRU, and
lists per memory cgroup (:meth:`Ring.oldest` searches these).
"""

from __future__ import annotations

import numpy as np

from nicemu.tables.world import lazy_zeros


class Ring:
    """Frames in the order they came. An entry is alive if it is its frame's newest; dead ones are skipped."""

    def __init__(self, frames: int) -> None:
        self._ring = np.zeros(1 << 12, np.int64)
        self._places = lazy_zeros(frames, np.int64)
        self._place = self._places.data
        self._head = self._tail = 1 << 32  # room before the head for :meth:`age`
        self.live = 0
        """How many frames are on the list."""

    def __len__(self) -> int:
        return self._tail - self._head

    def add(self, frame: int) -> None:
        """Put a frame at the tail."""
        if len(self) == len(self._ring):
            self._compact(1)
        self._ring[self._tail & len(self._ring) - 1] = frame
        self.live += self._place[frame] == 0
        self._place[frame] = self._tail
        self._tail += 1

    def add_many(self, frames: np.ndarray) -> None:
        """Put frames at the tail, in order."""
        if len(self) + len(frames) > len(self._ring):
            self._compact(len(frames))
        places = np.arange(self._tail, self._tail + len(frames))
        self._ring[places & len(self._ring) - 1] = frames
        self.live += int(np.count_nonzero(self._places[frames] == 0))
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
                self.live -= len(live)
                return live
        return np.empty(0, np.int64)

    def oldest(self, wanted: int, chosen: np.ndarray) -> np.ndarray:
        """Take the oldest frames with ``chosen[frame]`` (bool) off the list, at most ``wanted``; the rest stay."""
        places = np.arange(self._head, self._tail)
        frames = self._ring[places & len(self._ring) - 1]
        found: np.ndarray = frames[(self._places[frames] == places) & chosen[frames]][:wanted]
        self._places[found] = 0
        self.live -= len(found)
        return found

    def age(self, frames: np.ndarray) -> None:
        """Put frames at the head: the next to go."""
        if len(self) + len(frames) > len(self._ring):
            self._compact(len(frames))
        self._head -= len(frames)
        places = np.arange(self._head, self._head + len(frames))
        self._ring[places & len(self._ring) - 1] = frames
        self.live += int(np.count_nonzero(self._places[frames] == 0))
        self._places[frames] = places

    def drop(self, frame: int) -> None:
        """Take a frame off the list, if it is there."""
        if self._place[frame]:
            self._place[frame] = 0
            self.live -= 1

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


class Lru:
    """Both lists; a frame is on one of them at most."""

    def __init__(self, frames: int) -> None:
        self.inactive, self.active = Ring(frames), Ring(frames)
        self._referenced = lazy_zeros(frames, bool).data

    def __len__(self) -> int:
        return self.inactive.live + self.active.live

    @property
    def inactive_is_low(self) -> bool:
        """``inactive_is_low``: some active pages should become inactive."""
        return self.active.live > self.inactive.live

    def add(self, frame: int) -> None:
        """``folio_add_lru``: the newest inactive page."""
        self.active.drop(frame)
        self._referenced[frame] = False
        self.inactive.add(frame)

    def add_many(self, frames: np.ndarray) -> None:
        """:meth:`add` for frames that are on no list, in order."""
        np.asarray(self._referenced)[frames] = False
        self.inactive.add_many(frames)

    def age(self, frames: np.ndarray) -> None:
        """``folio_deactivate``: to the head of the inactive list, not referenced."""
        for frame in frames.tolist():
            self.active.drop(frame)
        np.asarray(self._referenced)[frames] = False
        self.inactive.age(frames)

    def rotate(self, frame: int) -> None:
        """To the tail of the inactive list, as it is: it cannot go now."""
        self.inactive.add(frame)

    def used(self, frame: int) -> None:
        """An inactive page was found used: it stays, the second time as an active one."""
        again, self._referenced[frame] = self._referenced[frame], not self._referenced[frame]
        (self.active if again else self.inactive).add(frame)

    def drop(self, frame: int) -> None:
        """Take a frame off its list."""
        self.inactive.drop(frame)
        self.active.drop(frame)
