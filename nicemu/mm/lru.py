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

START, LAST = 1 << 31, (1 << 32) - 1
"""Places are 32 bits. The first one leaves room before the head for :meth:`Ring.age`."""
ROOM, WINDOW = 1 << 12, 1 << 14
RUN = 64
"""Frames that make a run (chosen: places of 256 bytes, about what it takes to note one)."""


class Ring:
    """Frames in the order they came, 4 bytes each: a frame knows its place, its newest. Places that were left behind
    stay empty until they are closed up. Who has a place is looked up when somebody takes, a window of places at a time.
    Of runs of frames that are new on the list only the first place is noted until somebody asks: a list that nobody
    takes from costs next to nothing.
    """

    def __init__(self, frames: int) -> None:
        self._places = lazy_zeros(frames, np.uint32)
        self._place = self._places.data
        self._ids = 0  # no frame from here on was ever on the list
        self._runs: list[tuple[int, int, int]] = []  # frame, its place, how many: not in _places yet
        self._head = self._tail = START
        self._room = ROOM  # places from head to tail, then they are closed up
        self._window, self._first = np.empty(0, np.int64), 0  # who has the places from the first on
        self.live = 0
        """How many frames are on the list."""

    def __len__(self) -> int:
        return self._tail - self._head

    def add(self, frame: int) -> None:
        """Put a frame at the tail."""
        self._make_room(1)
        if self._runs and frame < self._ids:
            self._write_runs()
        self.live += self._place[frame] == 0
        self._place[frame] = self._tail
        if self._tail - self._first < len(self._window):
            self._window[self._tail - self._first] = frame
        self._tail += 1
        self._ids = max(self._ids, frame + 1)

    def add_many(self, frames: np.ndarray) -> None:
        """Put frames at the tail, in order."""
        self._make_room(len(frames))
        if len(frames) >= RUN and frames[0] >= self._ids and (frames[1:] - frames[:-1] == 1).all():
            self._note_run(int(frames[0]), len(frames))
        else:
            self._put(frames, self._tail)
        self._tail += len(frames)

    def take(self, wanted: int) -> np.ndarray:
        """Take the oldest frames off the list, at most ``wanted``."""
        while len(self):
            places = np.arange(self._head, min(self._head + wanted, self._tail))
            frames = self._at(places)
            self._head += len(places)
            live: np.ndarray = frames[self._places[frames] == places]
            if len(live):
                self._places[live] = 0
                self.live -= len(live)
                return live
        return np.empty(0, np.int64)

    def oldest(self, wanted: int, chosen: np.ndarray) -> np.ndarray:
        """Take the oldest frames with ``chosen[frame]`` (bool) off the list, at most ``wanted``; the rest stay."""
        frames = self._in_order()
        found: np.ndarray = frames[chosen[frames]][:wanted]
        self._places[found] = 0
        self.live -= len(found)
        return found

    def age(self, frames: np.ndarray) -> None:
        """Put frames at the head: the next to go."""
        self._make_room(len(frames))
        self._head -= len(frames)
        self._put(frames, self._head)

    def drop(self, frame: int) -> None:
        """Take a frame off the list, if it is there."""
        if self._runs and frame < self._ids:
            self._write_runs()
        if self._place[frame]:
            self._place[frame] = 0
            self.live -= 1

    def _note_run(self, frame: int, count: int) -> None:
        """Consecutive frames that never were on the list get the places from the tail on."""
        self.live += count
        self._ids = frame + count
        self._window = self._window[:0]
        if self._runs:
            first, place, before = self._runs[-1]
            if (first + before, place + before) == (frame, self._tail) and before + count <= WINDOW:
                self._runs[-1] = first, place, before + count
                return
        self._runs.append((frame, self._tail, count))

    def _write_runs(self) -> None:
        """Frames in runs know their places."""
        for frame, place, count in self._runs:
            self._places[frame : frame + count] = np.arange(place, place + count)
        self._runs.clear()

    def _put(self, frames: np.ndarray, first: int) -> None:
        if self._runs:
            self._write_runs()
        self.live += int(np.count_nonzero(self._places[frames] == 0))
        self._places[frames] = np.arange(first, first + len(frames))
        self._window = self._window[:0]
        self._ids = max(self._ids, int(frames.max(initial=-1)) + 1)

    def _at(self, places: np.ndarray) -> np.ndarray:
        """Who has these consecutive places; 0 has one that was left."""
        at = int(places[0]) - self._first
        if not 0 <= at <= len(self._window) - len(places):
            self._write_runs()
            self._first, at = int(places[0]), 0
            self._window = np.zeros(max(WINDOW, len(places)), np.int64)
            ahead = self._places[: self._ids] - np.uint32(self._first)
            found = np.flatnonzero(ahead < len(self._window))
            self._window[ahead[found]] = found
        return self._window[at : at + len(places)]

    def _in_order(self) -> np.ndarray:
        self._write_runs()
        frames = np.flatnonzero(self._places[: self._ids])
        ordered: np.ndarray = frames[np.argsort(self._places[frames])]
        return ordered

    def _make_room(self, more: int) -> None:
        """Close up what was left behind if there are too many places. If nothing was, there may be more."""
        places = len(self) + more
        if places > self._room and self.live == places - more:
            self._grow(places)
        if places <= self._room and self._tail + more <= LAST:
            return
        frames = self._in_order()
        self._grow(len(frames) + more)
        self._head, self._tail = START, START + len(frames)
        self._places[frames] = np.arange(self._head, self._tail)
        self._window, self._first = self._window[:0], self._head

    def _grow(self, places: int) -> None:
        """Room for twice as many places."""
        while self._room < 2 * places:
            self._room *= 2


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
        if self._referenced[frame]:
            self._referenced[frame] = False
        self.inactive.add(frame)

    def add_many(self, frames: np.ndarray) -> None:
        """:meth:`add` for frames that are on no list, in order."""
        self._forget(frames)
        self.inactive.add_many(frames)

    def age(self, frames: np.ndarray) -> None:
        """``folio_deactivate``: to the head of the inactive list, not referenced."""
        for frame in frames.tolist():
            self.active.drop(frame)
        self._forget(frames)
        self.inactive.age(frames)

    def _forget(self, frames: np.ndarray) -> None:
        """They were not used; what is so already is not written, it may never have been committed."""
        referenced = np.asarray(self._referenced)
        referenced[frames[referenced[frames]]] = False

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
