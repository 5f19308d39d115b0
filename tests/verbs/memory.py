"""Memory of a program: pages between guard pages, registered as an MR."""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import pytest
from pyverbs import enums as e
from pyverbs import mem_alloc
from pyverbs.mr import MR
from pyverbs.wr import SGE

from .libc import Calls

PAGE = mmap.PAGESIZE
LOCAL = e.IBV_ACCESS_LOCAL_WRITE
ALL = LOCAL | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
READ_WRITE = mem_alloc.PROT_READ_ | mem_alloc.PROT_WRITE_
ANONYMOUS = mem_alloc.MAP_PRIVATE_ | mem_alloc.MAP_ANONYMOUS_
GUARD = bytes(range(0x81, 0x100, 2)) * (PAGE // 64)
DONTNEED = 4

CALLS: Any = Calls()
"""Who makes mprotect and mremap; conftest.py puts the emulated host here."""


class Remote(NamedTuple):
    """Where an RDMA operation goes."""

    address: int
    rkey: int


class Region:
    """`pages` pages of `side`, untouched, between two guard pages, and their MR.

    `access` in ibv_access_flags; with `odp` the MR is on demand, and the test is skipped where there is none.
    """

    def __init__(self, side: Any, pages: int = 1, access: int = ALL, odp: bool = False) -> None:
        self.length = pages * PAGE
        self._base = mem_alloc.mmap(length=self.length + 2 * PAGE, prot=READ_WRITE, flags=ANONYMOUS)
        self.address = self._base + PAGE
        self._moved: list[int] = []
        self._guards = [self._base, self.address + self.length]
        for guard in self._guards:
            mem_alloc.write(guard, GUARD, PAGE)
        self.mr = self._register(side, access, odp)

    def _register(self, side: Any, access: int, odp: bool) -> Any:
        if odp:
            needs_on_demand(side.context)
        return MR(side.pd, self.length, access | (e.IBV_ACCESS_ON_DEMAND if odp else 0), address=self.address)

    @property
    def lkey(self) -> int:
        return int(self.mr.lkey)

    @property
    def rkey(self) -> int:
        return int(self.mr.rkey)

    def sge(self, offset: int = 0, length: int | None = None) -> SGE:
        """An element over the region: `length` bytes (the rest) from `offset`."""
        return SGE(self.address + offset, self.length - offset if length is None else length, self.lkey)

    def remote(self, offset: int = 0) -> Remote:
        """The region from `offset` as the target of the other side's requests."""
        return Remote(self.address + offset, self.rkey)

    def fill(self, pattern: bytes | int, offset: int = 0) -> None:
        """Write bytes at `offset`; of a number, the whole rest of the region becomes `pattern(number)`."""
        data = make_pattern(pattern, self.length - offset) if isinstance(pattern, int) else pattern
        mem_alloc.write(self.address + offset, data, len(data))

    def bytes(self, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (the rest) from `offset`, as the program sees them."""
        return bytes(mem_alloc.read(self.address + offset, self.length - offset if length is None else length))

    def discard(self, offset: int = 0, length: int | None = None) -> None:
        """Take the pages away (madvise DONTNEED): the next touch finds zeros."""
        mem_alloc.madvise(self.address + offset, self.length - offset if length is None else length, DONTNEED)

    def unmap(self, offset: int = 0, length: int | None = None) -> None:
        """Unmap pages; the guards stay."""
        mem_alloc.munmap(self.address + offset, self.length - offset if length is None else length)

    def map_anew(self, offset: int = 0, length: int | None = None) -> None:
        """Map fresh zeroed pages in place of what is or was there."""
        size = self.length - offset if length is None else length
        mem_alloc.mmap(self.address + offset, size, READ_WRITE, ANONYMOUS | mem_alloc.MAP_FIXED_)

    def protect(self, prot: int, offset: int = 0, length: int | None = None) -> None:
        """Change the protection of pages; `prot` of PROT_*_ in pyverbs.mem_alloc."""
        CALLS.mprotect(self.address + offset, self.length - offset if length is None else length, prot)

    def move(self) -> int:
        """Move the pages elsewhere (mremap); their new address. The MR, `address` and the guards stay."""
        moved = int(CALLS.mremap(self.address, self.length, self.length + PAGE))  # the guard leaves no room to grow
        self._moved.append(moved)
        return moved

    def check_guards(self) -> None:
        """The pages before and after are as they were."""
        for guard, where in zip(self._guards, ("before", "after"), strict=True):
            assert mem_alloc.read(guard, PAGE) == GUARD, f"the page {where} the region was written to"

    def release(self) -> None:
        """Unmap what is left. The MR must be gone."""
        for address, length in (
            (self._base, self.length + 2 * PAGE),
            *((at, self.length + PAGE) for at in self._moved),
        ):
            mem_alloc.munmap(address, length)


def needs_on_demand(context: Any) -> None:
    """Skip the test if the device has no on-demand paging."""
    if not context.query_device_ex().odp_caps.general_caps & e.IBV_ODP_SUPPORT:
        pytest.skip("the device has no on-demand paging")


def make_pattern(seed: int, length: int) -> bytes:
    """Bytes that differ by seed, offset and page: no two aligned 8-byte words of one pattern are alike."""
    words = range(-(-length // 8))
    return b"".join([(index * 0x9E3779B97F4A7C15 + seed + 1 & 2**64 - 1).to_bytes(8, "little") for index in words])[
        :length
    ]
