"""What the OOM killer says: who wanted memory, where the RAM is, what each address space holds (``dump_header``).

Beyond what Linux prints, the pinned pages, and who pinned them: nothing else tells them from other anonymous memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.page import PG_FILE, PG_MLOCKED
from nicemu.mm.page_table import PRESENT, SWAP

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace
    from nicemu.mm.host import Host
    from nicemu.mm.memcg import Memcg

KIB_PER_PAGE = 4
NODE_PAGES = 1
"""A node of the page tables is a page."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What an address space has (``get_mm_rss``, MM_SWAPENTS, ``mm_pgtables_bytes``), pages."""

    rss: int
    swap: int
    tables: int

    @classmethod
    def of(cls, mm: AddressSpace) -> Memory:
        """Counted now, from the page tables."""
        entries = mm.page_table.entries(0, 1 << 36)
        zero = mm.host.zero_frame
        present = (entries & PRESENT) != 0
        rss = np.count_nonzero(present & (entries >> 12 != zero))
        leaves = {a >> 9 for a, _ in mm.page_table.spans(0, 1 << 36)}
        nodes = sum(len({leaf >> 9 * level for leaf in leaves}) for level in range(4))
        return cls(int(rss), int(np.count_nonzero((entries & SWAP) != 0)), nodes * NODE_PAGES)


@dataclass(frozen=True, slots=True)
class Ram:
    """Where the pages of the host are. A page is counted once: as pinned, else as locked, file or anonymous; ``other``
    are those in nobody's page table."""

    pinned: int
    mlocked: int
    file: int
    anon: int
    other: int

    @classmethod
    def of(cls, host: Host) -> Ram:
        """Counted now, from the frame table."""
        pages = host.pages
        used = pages.refcounts[: host.frames.ids] > 0
        flags, pinned = pages.all_flags[: host.frames.ids], pages.all_pins[: host.frames.ids] > 0
        mapped = pages.mapcounts[: host.frames.ids] > 0
        kinds = np.select([~used, pinned, (flags & PG_MLOCKED) != 0, (flags & PG_FILE) != 0, mapped], range(5), 5)
        return cls(*np.bincount(kinds, minlength=6).tolist()[1:])


@dataclass(frozen=True, slots=True)
class Report:
    """One call of the OOM killer. ``victim``: number of the address space chosen, 0: none."""

    time: int
    pages: int
    ram: Ram
    pins: dict[str, int]
    victim: int
    headline: str
    text: str

    def __str__(self) -> str:
        return self.text


def describe(host: Host, wanted: int, memcg: Memcg | None, candidates: list[tuple[AddressSpace, Memory, int]]) -> str:
    """All but the last line of the report. ``candidates``: with their scores."""
    ram, marks, thread = Ram.of(host), host.watermarks, host.thread
    group = f" in group {memcg.name} ({memcg.usage} of {memcg.limit} pages)" if memcg is not None else ""
    lines = [
        f"{thread.name}: OOM killer called for {wanted} pages{group}, in {' > '.join(thread.context)}",
        f"  RAM   {host.frames.ram_pages} pages: free {host.frames.available} (min {marks.min}, low {marks.low}, "
        f"high {marks.high}), pinned {ram.pinned}, mlocked {ram.mlocked}, anon {ram.anon}, file {ram.file}, "
        f"other {ram.other}",
        f"  swap  {host.swap.pages} pages: free {host.swap.pages - host.swap.used}",
    ]
    pins = [(mm, owner, pages) for mm, _, _ in candidates for owner, pages in mm.memlock.pins.items()]
    lines += [f"  pins  {owner}: {pages} pages of process {mm.number} ({mm.name})" for mm, owner, pages in pins]
    lines.append("  [process]    rss  pinned  locked    swap  tables   adj   score  name")
    lines += [f"  [{mm.number:7}] {has.rss:6} {mm.memlock.pinned_vm:7} {mm.locked_vm:7} {has.swap:7} "
              f"{has.tables:7} {mm.oom_score_adj:5} {score:7}  {mm.name}" for mm, has, score in candidates]  # fmt: skip
    return "\n".join(lines)


def headline(mm: AddressSpace, has: Memory, message: str, fate: str) -> str:
    """The last line: what was decided."""
    total = sum(vma.end - vma.start for vma in mm.vmas) >> 10
    return (f"{message}: {fate} process {mm.number} ({mm.name}) total-vm:{total}kB, rss:{has.rss * KIB_PER_PAGE}kB, "
            f"pinned:{mm.memlock.pinned_vm * KIB_PER_PAGE}kB, swap:{has.swap * KIB_PER_PAGE}kB, "
            f"pgtables:{has.tables * KIB_PER_PAGE}kB oom_score_adj:{mm.oom_score_adj}")  # fmt: skip
