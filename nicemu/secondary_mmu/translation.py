"""A translation that a secondary MMU holds, and what makes it stale.

A frame's generation counts how often it was freed; its stamps say when the last invalidation of it returned and when it
was last write-protected (``memory.frames``). A translation made before either must be gone when that callback returns,
so the check holds at every moment, not only when all is quiet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nicemu.mm.page import PAGE_SHIFT
from nicemu.mm.page_table import PFN_SHIFT, PRESENT

if TYPE_CHECKING:
    from nicemu.mm import AddressSpace, Host


@dataclass(slots=True)
class Translation:
    """One page: an spte. ``stamp``: the mm's when it was made."""

    frame: int
    generation: int
    stamp: int
    writable: bool
    young: bool = True


class Stale(NamedTuple):
    """A translation that should be gone. ``why``: ``freed``, ``invalidated``, ``write-protected`` or ``not mapped``;
    ``operation``: what took the page last."""

    subscriber: str
    page: int
    frame: int
    why: str
    operation: str

    def __str__(self) -> str:
        return f"{self.subscriber} has page {self.page:#x} at frame {self.frame}, {self.why} (by {self.operation})"


def translate(host: Host, frame: int, writable: bool) -> Translation:
    """A translation to the frame, made now."""
    row = host.world.frame[frame]
    return Translation(frame, int(row.generation), int(host.world.control[0].stamp), writable)


def stale(mm: AddressSpace, name: str, held: dict[int, Translation], settled: bool) -> list[Stale]:
    """The stale ones of ``held`` (by page number). ``settled``: no operation runs, so that each must be what the page
    table has."""
    host = mm.host
    found = []
    for page, translation in sorted(held.items()):
        row, stamps = host.world.frame[translation.frame], host.world.frame_stamp[translation.frame]
        stamp = translation.stamp
        entry = mm.page_table.get(page) if settled else 0
        why = ""
        if row.generation != translation.generation:
            why = "freed"
        elif stamp < stamps.invalidated:
            why = "invalidated"
        elif translation.writable and stamp < stamps.protected:
            why = "write-protected"
        elif settled and not (entry & PRESENT and entry >> PFN_SHIFT == translation.frame):
            why = "not mapped"
        if why:
            operation = host.frames.operation_name(stamps.operation)
            found.append(Stale(name, page, translation.frame, why, operation))
    return found


def pages_between(held: dict[int, Translation], start: int, end: int) -> list[int]:
    """Pages of bytes [start, end) that are translated, ascending."""
    first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    if last - first < len(held):
        return [page for page in range(first, last) if page in held]
    return sorted(page for page in held if first <= page < last)
