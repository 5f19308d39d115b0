"""What memory must be, for the memory gate: regions, pages with their bytes and access, DMA in flight."""

from __future__ import annotations

from dataclasses import dataclass

from memory_machine import PAGE

from nicemu.tables.records import FrameKind

GONE, NONE, READ, WRITE = -1, 0, 1, 2
"""What the real address space allows of a page."""


@dataclass(eq=False, slots=True)
class Region:
    """What one map step made: pages [first, first + count), some of which may be gone by now."""

    number: int
    kind: FrameKind
    first: int
    count: int


@dataclass(eq=False, slots=True)
class Page:
    """What a page of the program must hold. ``model``: access that the model grants; ``real``: the real kernel."""

    region: Region
    model: int
    real: int
    data: bytearray | None = None

    def put(self, offset: int, data: bytes) -> None:
        """Store."""
        if self.data is None:
            self.data = bytearray(PAGE)
        self.data[offset : offset + len(data)] = data

    def get(self, offset: int, length: int) -> bytes:
        """Load."""
        return bytes(length) if self.data is None else bytes(self.data[offset : offset + length])


@dataclass(eq=False, slots=True)
class Dma:
    """A translated DMA whose bytes have not moved."""

    region: Region
    page: int
    frame: int
    generation: int
    offset: int
    data: bytes
    """What a write brings; of a read only the length counts."""
    write: bool


class Mismatch(Exception):
    """Memory is not what it must be."""


def expect(holds: bool, text: str) -> None:
    """:raises Mismatch: unless ``holds``."""
    if not holds:
        raise Mismatch(text)
