"""Four-level page tables in the world's radix node pool.

Index of a tree: the page number (36 bits, 9 per level: pgd, pud, pmd, pte). A page-table entry is an int64::

    bit 0   PRESENT
    bit 1   WRITE       writable without a fault
    bit 2   ACCESSED    set by faults and CPU accesses of the program; a device does not age pages
    bit 3   DIRTY
    bit 4   SWAP        not present: bits 12.. are a swap slot
    bit 5   MIGRATION   not present: bits 12.. are a frame that is being migrated; WRITE, ACCESSED, DIRTY come back
    bit 6   SOFT_DIRTY  written since /proc/pid/clear_refs
    bit 7   HWPOISON    not present: bits 12.. are a frame whose memory failed
    bit 8   PROTNONE    not present, yet maps the frame in bits 12..; WRITE, ACCESSED, DIRTY come back. Alone: behind a
                        NUMA hinting fault; with SPECIAL: used by a device only (device-private, device-exclusive)
    bit 9   UFFD_WP     write-protected by userfaultfd
    bit 10  HUGE        one of the 512 entries of a huge mapping: they change together
    bit 11  SPECIAL     not present: with PROTNONE a device's page, alone other kinds (nonlinear file offset)
    12..    frame id (pfn) or swap slot

Permissions of the VMA are checked before the entry, so PROT_NONE needs no bit. Views of a leaf must not be kept over
a ``yield``: another thread may free the node.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nicemu.tables.world import World

PRESENT, WRITE, ACCESSED, DIRTY, SWAP, MIGRATION = 1, 2, 4, 8, 16, 32
SOFT_DIRTY, HWPOISON, PROTNONE, UFFD_WP, HUGE, SPECIAL = 64, 128, 256, 512, 1024, 2048
MAPS = PRESENT | PROTNONE
"""An entry with either bit counts in its frame's refcount and mapcount."""
WRITTEN = WRITE | DIRTY | SOFT_DIRTY
"""What a write fault sets (``pte_mkwrite``, ``pte_mkdirty``)."""
PFN_SHIFT = 12
LEVELS = 4
ENTRIES = 512


def pte(frame: int, flags: int) -> int:
    """An entry for a frame (or, with SWAP, a slot)."""
    return frame << PFN_SHIFT | flags


class PageTable:
    """One address space's tree. ``_leaves`` caches the walk to each leaf, as paging-structure caches do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes = world.nodes
        self.words = self.nodes.reshape(-1).data
        """All entries of all nodes; the first is always 0."""
        self.root = world.new_node()
        self._leaves: dict[int, int] = {}

    def leaf(self, page: int) -> int:
        """Node of the leaf that holds ``page``, 0 if absent."""
        return self._leaves.get(page >> 9, 0)

    def make_leaf(self, page: int) -> int:
        """``pte_alloc``: the leaf that holds ``page``, made if absent."""
        node = self._leaves.get(page >> 9, 0)
        if node:
            return node
        node = self.root
        for level in range(LEVELS - 1, 0, -1):
            at = node * ENTRIES + ((page >> (9 * level)) & 511)
            child = self.words[at]
            if child == 0:
                child = self.world.new_node()
                self.words[at] = child
            node = child
        self._leaves[page >> 9] = node
        return node

    def place(self, page: int) -> int:
        """Where in ``words`` the entry of ``page`` is, 0 if absent. Not to be kept over a yield."""
        node = self._leaves.get(page >> 9, 0)
        return node * ENTRIES + (page & 511) if node else 0

    def get(self, page: int) -> int:
        """The entry of ``page``, 0 if absent."""
        node = self._leaves.get(page >> 9, 0)
        return self.words[node * ENTRIES + (page & 511)] if node else 0

    def set(self, page: int, entry: int) -> None:
        """``set_pte_at``."""
        self.words[self.make_leaf(page) * ENTRIES + (page & 511)] = entry

    def view(self, first: int, last: int) -> np.ndarray:
        """Entries of pages [first, last) of one leaf, made if absent. Not to be kept over a yield."""
        node = self.make_leaf(first)
        return self.nodes[node, first & 511 : (first & 511) + last - first]

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Page ranges [a, b), at most a leaf each, that have a leaf within [first, last), in order. The tree may
        change while the caller goes through them; leaves that vanish are left out."""
        for key in self._leaf_keys(first >> 9, (last + 511) >> 9):
            if key in self._leaves:
                yield max(first, key << 9), min(last, (key + 1) << 9)

    def _leaf_keys(self, first: int, last: int) -> list[int]:
        if last - first <= len(self._leaves):
            return [key for key in range(first, last) if key in self._leaves]
        return sorted(key for key in self._leaves if first <= key < last)

    def entries(self, first: int, last: int) -> np.ndarray:
        """A copy of all non-empty entries in [first, last), in page order."""
        parts = [self.view(a, b) for a, b in self.spans(first, last)]
        if not parts:
            return np.empty(0, np.int64)
        together: np.ndarray = np.concatenate(parts)
        together = together[together != 0]
        return together

    def free_empty(self, first: int, last: int) -> None:
        """``free_pgtables``: give back leaves in the range without entries, and inner nodes that become empty."""
        for key in self._leaf_keys(first >> 9, (last + 511) >> 9):
            if not self.nodes[self._leaves[key]].any():
                self._free_leaf(key)

    def _free_leaf(self, key: int) -> None:
        page = key << 9
        path = [self.root]
        for level in range(LEVELS - 1, 0, -1):
            path.append(self.words[path[-1] * ENTRIES + ((page >> (9 * level)) & 511)])
        del self._leaves[key]
        for level in range(1, LEVELS):
            self.world.free_node(path[-level])
            parent = path[-level - 1]
            self.words[parent * ENTRIES + ((page >> (9 * level)) & 511)] = 0
            if parent == self.root or self.nodes[parent].any():
                return

    def release(self) -> None:
        """Give back the whole tree (it must map nothing)."""
        self.free_empty(0, 1 << 36)
        assert not self._leaves, "page table released with pages mapped"
        self.world.free_node(self.root)
