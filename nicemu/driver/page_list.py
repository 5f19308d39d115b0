"""Which pages of on-demand memory the device has (``umem_odp->map``), in chunks: the cost is what is mapped.

Linux allocates its lists with the region (16 bytes a page); a region of 1 TiB would cost 4 GiB. Which frames they are
nobody asks: the device's table has them.
"""

from __future__ import annotations

import numpy as np

SHIFT = 12
CHUNK = 1 << SHIFT


class PageList:
    """A bit for each page, by page number: 1 if it is mapped; ``mapped``: how many there are."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        """The bits of ``CHUNK`` pages each; an empty chunk goes."""
        self.mapped = 0

    def store(self, first: int, frames: np.ndarray) -> None:
        """What pages ``first``.. are mapped to from now on; 0: not mapped."""
        at = 0
        while at < len(frames):
            page = first + at
            part = frames[at : at + CHUNK - (page & CHUNK - 1)]
            bits = int.from_bytes(np.packbits(part != 0, bitorder="little").tobytes(), "little")
            self._set(page, len(part), bits)
            at += len(part)

    def store_page(self, page: int, frame: int) -> None:
        """The same for one page."""
        key, bit = page >> SHIFT, 1 << (page & CHUNK - 1)
        old = self._chunks.get(key, 0)
        if (old & bit != 0) != (frame != 0):
            self.mapped += 1 if frame else -1
            self._replace(key, old ^ bit)

    def __contains__(self, page: int) -> bool:
        """Is the page mapped?"""
        return bool(self._chunks.get(page >> SHIFT, 0) >> (page & CHUNK - 1) & 1)

    def _set(self, page: int, count: int, bits: int) -> None:
        """The bits of pages of one chunk."""
        key, at = page >> SHIFT, page & CHUNK - 1
        old = self._chunks.get(key, 0)
        before = old >> at & (1 << count) - 1
        new = old ^ (before ^ bits) << at
        self.mapped += bits.bit_count() - before.bit_count()
        self._replace(key, new)

    def _replace(self, key: int, bits: int) -> None:
        """All bits of a chunk."""
        if bits:
            self._chunks[key] = bits
        else:
            self._chunks.pop(key, None)

    def numbers(self, first: int, last: int) -> np.ndarray:
        """Numbers of the mapped pages in [first, last), ascending."""
        if last - first == 1:
            return np.array([first] if first in self else [], np.int64)
        parts = []
        for page, count in self._parts(first, last):
            bits = self._chunks[page >> SHIFT] >> (page & CHUNK - 1) & (1 << count) - 1
            octets = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), np.uint8)
            parts.append(np.flatnonzero(np.unpackbits(octets, bitorder="little")) + page)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def clear(self, first: int, last: int) -> None:
        """Nothing in [first, last) is mapped any more."""
        if last - first == 1:
            self.store_page(first, 0)
            return
        for page, count in self._parts(first, last):
            self._set(page, count, 0)

    def _parts(self, first: int, last: int) -> list[tuple[int, int]]:
        """(first page, pages) of the range's part of each chunk that is there."""
        low, high = first >> SHIFT, (last + CHUNK - 1) >> SHIFT
        few = high - low <= len(self._chunks)
        keys = range(low, high) if few else sorted(key for key in self._chunks if low <= key < high)
        spans = [(max(first, key << SHIFT), min(last, key + 1 << SHIFT)) for key in keys if key in self._chunks]
        return [(start, end - start) for start, end in spans]
