"""Which pages of on-demand memory the device has (``umem_odp->map``), in chunks: the cost is what is mapped.

Linux allocates its lists with the region (16 bytes a page); a region of 1 TiB would cost 4 GiB. Which frames they are
nobody asks: the device's table has them.
"""

from __future__ import annotations

import numpy as np

SHIFT = 12
CHUNK = 1 << SHIFT


class PageList:
    """A byte for each page, by page number: 1 if it is mapped; ``mapped``: how many there are."""

    def __init__(self) -> None:
        self._chunks: dict[int, np.ndarray] = {}
        self._counts: dict[int, int] = {}
        """Mapped pages of each chunk; an empty chunk goes."""
        self.mapped = 0

    def store(self, first: int, frames: np.ndarray) -> None:
        """What pages ``first``.. are mapped to from now on; 0: not mapped."""
        if len(frames) == 1:
            self.store_page(first, int(frames[0]))
            return
        at = 0
        while at < len(frames):
            page = first + at
            start = page & CHUNK - 1
            part = frames[at : at + CHUNK - start] != 0
            window = self._chunk(page)[start : start + len(part)]
            more = int(np.count_nonzero(part) - np.count_nonzero(window))
            window[:] = part
            self._count(page >> SHIFT, more)
            at += len(part)

    def store_page(self, page: int, frame: int) -> None:
        """The same for one page."""
        chunk = self._chunk(page).data
        at = page & CHUNK - 1
        more = (frame != 0) - chunk[at]
        chunk[at] = frame != 0
        self._count(page >> SHIFT, more)

    def __contains__(self, page: int) -> bool:
        """Is the page mapped?"""
        chunk = self._chunks.get(page >> SHIFT)
        return chunk is not None and bool(chunk.data[page & CHUNK - 1])

    def _chunk(self, page: int) -> np.ndarray:
        """The chunk that holds a page, made if absent."""
        chunk = self._chunks.get(page >> SHIFT)
        if chunk is None:
            chunk = self._chunks[page >> SHIFT] = np.zeros(CHUNK, np.uint8)
            self._counts[page >> SHIFT] = 0
        return chunk

    def _count(self, key: int, more: int) -> None:
        """So many more pages of a chunk are mapped."""
        self.mapped += more
        self._counts[key] += more
        if not self._counts[key]:
            del self._chunks[key], self._counts[key]

    def numbers(self, first: int, last: int) -> np.ndarray:
        """Numbers of the mapped pages in [first, last), ascending."""
        if last - first == 1:
            return np.array([first] if first in self else [], np.int64)
        parts = [np.flatnonzero(self._chunks[key]) + (key << SHIFT) for key in self._keys(first, last)]
        if not parts:
            return np.empty(0, np.int64)
        together = np.concatenate(parts)
        inside: np.ndarray = together[(together >= first) & (together < last)]
        return inside

    def clear(self, first: int, last: int) -> None:
        """Nothing in [first, last) is mapped any more."""
        if last - first == 1:
            if first in self:
                self.store_page(first, 0)
            return
        for key in self._keys(first, last):
            start = key << SHIFT
            window = self._chunks[key][max(first - start, 0) : max(last - start, 0)]
            less = int(np.count_nonzero(window))
            window[:] = 0
            self._count(key, -less)

    def _keys(self, first: int, last: int) -> list[int]:
        low, high = first >> SHIFT, (last + CHUNK - 1) >> SHIFT
        if high - low <= len(self._chunks):
            return [key for key in range(low, high) if key in self._chunks]
        return sorted(key for key in self._chunks if low <= key < high)
