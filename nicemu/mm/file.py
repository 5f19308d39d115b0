"""``struct address_space`` of a file: its page cache and the areas that map it.

Left out so far: everything but the records (writeback, truncation and the fault path are built on them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nicemu.mm.vma import Vma


@dataclass(eq=False, slots=True)
class File:
    """One inode. ``pages``: page cache, page index -> frame; ``vmas``: ``i_mmap``, areas that map any of it."""

    number: int
    name: str
    size: int = 0
    """Bytes."""
    pages: dict[int, int] = field(default_factory=dict)
    vmas: list[Vma] = field(default_factory=list)
