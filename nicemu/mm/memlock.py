"""RLIMIT_MEMLOCK: what an address space may pin (``pinned_vm``) and lock (``AddressSpace.locked_vm``).

The two are counted apart and each is held against the limit by itself, in every era here (``ib_umem_get`` in
drivers/infiniband/core/umem.c counts ``pinned_vm`` since before 3.6). A page that is pinned twice counts twice: what is
charged is the pages of the request. Left out: 3.x takes a released region's pages from ``locked_vm`` instead (a bug of
its time), limits per user.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nicemu.abi.verbs import PAGE_SIZE
from nicemu.mm.page import Fault

if TYPE_CHECKING:
    from nicemu.mm.address_space import AddressSpace

KIB_PER_PAGE = PAGE_SIZE >> 10


@dataclass(eq=False, slots=True)
class Memlock:
    """One address space's limit and what counts towards it, in pages."""

    limit: int | None = None
    """None: RLIM_INFINITY."""
    capable: bool = False
    """CAP_IPC_LOCK: the limit does not bind."""
    pinned_vm: int = 0
    pins: dict[str, int] = field(default_factory=dict)
    """Pinned pages by who pinned them, for reports."""


def can_do_mlock(mm: AddressSpace) -> None:
    """``can_do_mlock``. :raises Fault: EPERM, the limit is 0."""
    if mm.memlock.limit == 0 and not mm.memlock.capable:
        raise Fault(errno.EPERM, 0, "RLIMIT_MEMLOCK is 0: nothing may be pinned or locked")


def _check(memlock: Memlock, held: int, pages: int, what: str) -> None:
    if memlock.limit is not None and held + pages > memlock.limit and not memlock.capable:
        wanted, held, limit = (number * KIB_PER_PAGE for number in (pages, held, memlock.limit))
        raise Fault(errno.ENOMEM, 0, f"RLIMIT_MEMLOCK is {limit} KiB: {wanted} KiB wanted, {held} KiB {what}")


def charge_pinned(mm: AddressSpace, pages: int, owner: str) -> None:
    """Count ``pages`` pinned pages of ``owner`` before they are pinned.

    :raises Fault: EPERM; ENOMEM, more than the limit.
    """
    can_do_mlock(mm)
    _check(mm.memlock, mm.memlock.pinned_vm, pages, "pinned")
    mm.memlock.pinned_vm += pages
    mm.memlock.pins[owner] = mm.memlock.pins.get(owner, 0) + pages


def uncharge_pinned(mm: AddressSpace, pages: int, owner: str) -> None:
    """They are released, or could not be had."""
    mm.memlock.pinned_vm -= pages
    mm.memlock.pins[owner] -= pages
    assert mm.memlock.pins[owner] >= 0, f"{owner} gives back more pins than it has"
    if not mm.memlock.pins[owner]:
        del mm.memlock.pins[owner]


def check_locked(mm: AddressSpace, pages: int) -> None:
    """``mlock``: may ``pages`` more pages be locked? :raises Fault: EPERM; ENOMEM, more than the limit."""
    can_do_mlock(mm)
    _check(mm.memlock, mm.locked_vm, pages, "locked")
