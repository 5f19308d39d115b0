"""The parts of a zap that only file mappings know (``zap_details``, ``should_zap_folio``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nicemu.mm.page import PG_DIRTY, PG_FILE
from nicemu.mm.page_table import DIRTY, MIGRATION, PFN_SHIFT, PRESENT, SPECIAL
from nicemu.mm.vma import VM_NONLINEAR, Vma

if TYPE_CHECKING:
    from nicemu.mm.host import Host


@dataclass(frozen=True, slots=True)
class ZapDetails:
    """``struct zap_details``: which pages of a file go, by index in [first, last), and whether private copies do."""

    first: int
    last: int
    even_cows: bool

    def selects(self, host: Host, vma: Vma, entries: np.ndarray) -> np.ndarray:
        """Which of these entries go (``should_zap_folio``). Nonlinear ones are looked at one by one."""
        selected: np.ndarray = entries != 0
        if self.even_cows and not vma.flags & VM_NONLINEAR:
            return selected
        frames = np.where(entries & (PRESENT | MIGRATION), entries >> PFN_SHIFT, 0)
        selected = (host.pages.all_flags[frames] & PG_FILE) != 0
        if vma.flags & VM_NONLINEAR:
            index = host.pages.indices[frames]
            selected &= (index >= self.first) & (index < self.last)
        else:  # holes of direct files
            selected |= (frames != 0) & ((frames == host.zero_frame) | (frames == host.xip_sparse))
        return selected


def zap_selected(vma: Vma, first: int, view: np.ndarray, details: ZapDetails) -> np.ndarray:
    """Clear what ``details`` selects; gives those entries. A nonlinear entry remembers its place in the file."""
    host = vma.mm.host
    selected = details.selects(host, vma, view)
    entries: np.ndarray = view[selected]
    view[selected] = 0
    if vma.flags & VM_NONLINEAR:
        at = np.flatnonzero(selected)
        index = host.pages.indices[entries >> PFN_SHIFT]
        moved = index != vma.pgoff + first + at - vma.first_page
        view[at[moved]] = index[moved] << PFN_SHIFT | SPECIAL
    return entries


def set_file_pages_dirty(host: Host, entries: np.ndarray) -> None:
    """``zap_present_ptes`` in a file mapping: a dirty entry makes the page dirty."""
    flags = host.pages.all_flags
    dirty = entries[(entries & (PRESENT | DIRTY)) == PRESENT | DIRTY] >> PFN_SHIFT
    flags[dirty[(flags[dirty] & PG_FILE) != 0]] |= PG_DIRTY
