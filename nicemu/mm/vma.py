"""``vm_area_struct``, the tree of a process's areas, and ``anon_vma``.

A :class:`Region` is what one ``mmap`` or adoption made; logs name pages by (region, page within it), which does not
depend on real addresses. Splits keep the region, the anon_vma and ``vm_pgoff``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sortedcontainers import SortedDict

from nicemu.mm.locks import RwSemaphore
from nicemu.mm.page import PAGE_SHIFT
from nicemu.tables.records import FrameKind

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.file import File


VM_READ, VM_WRITE, VM_EXEC, VM_DONTCOPY = 1, 2, 4, 8
VM_SHARED, VM_LOCKED, VM_HUGETLB, VM_HUGEPAGE = 16, 32, 64, 128
VM_MERGEABLE, VM_NONLINEAR, VM_XIP, VM_UFFD = 256, 512, 1024, 2048
VM_NOHUGEPAGE, VM_HUGE_1GB = 1 << 16, 1 << 17
"""No THP; the huge pages of a VM_HUGETLB area are of 1 GiB, not of 2 MiB."""
VM_MAYNOTWRITE = 1 << 20
"""A shared mapping of a file that is open for reading only (no VM_MAYWRITE)."""
VM_SPECIAL = VM_SHARED | VM_NONLINEAR | VM_XIP | VM_UFFD
"""Areas whose faults are resolved page by page, not in bulk."""
VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC


@dataclass(frozen=True, slots=True)
class Region:
    """Where an area came from: a number per host, and its first page at that time."""

    number: int
    first_page: int


@dataclass(eq=False, slots=True)
class AnonVma:
    """``struct anon_vma``: all areas, of parent and forked children, that may map a page made in one of them."""

    number: int
    lock: RwSemaphore
    """``anon_vma->root->rwsem``: walks of ``vmas``; split and collapse of huge pages hold it for write."""
    vmas: list[Vma] = field(default_factory=list)
    prepared: bool = False
    """A page was made in one of the areas (``anon_vma_prepare``)."""


@dataclass(eq=False, slots=True)
class Vma:
    """An area [start, end) of one address space; all its pages are of one memory kind."""

    mm: AddressSpace
    start: int
    end: int
    flags: int
    kind: FrameKind
    region: Region
    anon_vma: AnonVma
    pgoff: int
    """Page number, within the anon_vma and the file, of the first page."""
    file: File | None = None
    """What is mapped; None: anonymous memory."""
    cursor: int = 0
    """Nonlinear: pages from its start at which reclaim goes on (``vm_private_data``)."""

    @property
    def first_page(self) -> int:
        """Page number of ``start``."""
        return self.start >> PAGE_SHIFT

    @property
    def last_page(self) -> int:
        """Page number of ``end``."""
        return self.end >> PAGE_SHIFT

    def allows(self, write: bool) -> bool:
        """Access check of the fault path."""
        return bool(self.flags & VM_WRITE) if write else bool(self.flags & VM_ACCESS)

    def canonical(self, page: int) -> int:
        """Deterministic name of a page: region number and page within the region."""
        return self.region.number << 36 | (self.pgoff + page - self.first_page - self.region.first_page) & (1 << 36) - 1

    def link(self) -> None:
        """``anon_vma_chain_link``, ``vma_link_file``."""
        self.anon_vma.vmas.append(self)
        if self.file is not None:
            self.file.vmas.append(self)

    def unlink(self) -> None:
        """``unlink_anon_vmas``, ``unlink_file_vma``."""
        self.anon_vma.vmas.remove(self)
        if self.file is not None:
            self.file.vmas.remove(self)
        if not self.anon_vma.vmas:
            del self.mm.host.anon_vma_of[self.anon_vma.number]


class VmaTree:
    """The areas of an address space in address order (``mm_mt``)."""

    def __init__(self) -> None:
        self._by_start: SortedDict[int, Vma] = SortedDict()
        self._last: Vma | None = None
        """The area found last, while it is in the tree (``vmacache``)."""

    def __iter__(self) -> Iterator[Vma]:
        return iter(list(self._by_start.values()))

    def __len__(self) -> int:
        return len(self._by_start)

    def find(self, address: int) -> Vma | None:
        """``vma_lookup``: the area that holds ``address``."""
        last = self._last
        if last is not None and last.start <= address < last.end:
            return last
        at = self._by_start.bisect_right(address) - 1
        if at < 0:
            return None
        vma: Vma = self._by_start.peekitem(at)[1]
        if address >= vma.end:
            return None
        self._last = vma
        return vma

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """Areas that touch [start, end), in order."""
        last = self._last
        if last is not None and last.start <= start < end <= last.end:
            return [last]
        first = max(self._by_start.bisect_right(start) - 1, 0)
        low = self._by_start.peekitem(first)[0] if self._by_start else 0
        found = []
        for key in self._by_start.irange(minimum=low):
            if key >= end:
                break
            if self._by_start[key].end > start:
                found.append(self._by_start[key])
        if len(found) == 1:
            self._last = found[0]
        return found

    def insert(self, vma: Vma) -> None:
        """Add an area (nothing may lie there) and link it to its anon_vma."""
        self._by_start[vma.start] = vma
        vma.link()

    def remove(self, vma: Vma) -> None:
        """Take an area out and unlink it."""
        del self._by_start[vma.start]
        self._last = None
        vma.unlink()

    def split(self, vma: Vma, address: int) -> Vma:
        """``__split_vma``: cut ``vma`` at ``address``; gives the upper part."""
        upper = Vma(vma.mm, address, vma.end, vma.flags, vma.kind, vma.region, vma.anon_vma,
                    vma.pgoff + (address - vma.start >> PAGE_SHIFT), vma.file)  # fmt: skip
        vma.end, vma.cursor = address, 0
        self.insert(upper)
        return upper

    def isolate(self, start: int, end: int) -> list[Vma]:
        """Split at both ends so that the areas given lie wholly within [start, end)."""
        inside = []
        for vma in self.overlapping(start, end):
            part = self.split(vma, start) if vma.start < start else vma
            if part.end > end:
                self.split(part, end)
            inside.append(part)
        return inside

    def merge(self, start: int, end: int) -> None:
        """``vma_merge``: join neighbours around [start, end) that came from one area and are alike again."""
        previous: Vma | None = None
        for vma in self.overlapping(max(start - 1, 0), end + 1):
            if previous is not None and self._alike(previous, vma):
                self.remove(vma)
                previous.end = vma.end
            else:
                previous = vma

    @staticmethod
    def _alike(a: Vma, b: Vma) -> bool:
        return (
            a.end == b.start and a.flags == b.flags and a.kind == b.kind and a.anon_vma is b.anon_vma
            and a.region == b.region and a.file is b.file and a.pgoff + (a.end - a.start >> PAGE_SHIFT) == b.pgoff
        )  # fmt: skip

    def gap(self, length: int, low: int, high: int) -> int:
        """``get_unmapped_area``, lowest first: start of a free range of ``length`` in [low, high), 0 if none."""
        at = low
        for vma in self.overlapping(low, high):
            if vma.start - at >= length:
                return at
            at = max(at, vma.end)
        return at if high - at >= length else 0

    def holes(self, start: int, end: int) -> list[tuple[int, int]]:
        """Parts of [start, end) without an area."""
        found, at = [], start
        for vma in self.overlapping(start, end):
            if vma.start > at:
                found.append((at, vma.start))
            at = vma.end
        if at < end:
            found.append((at, end))
        return found
