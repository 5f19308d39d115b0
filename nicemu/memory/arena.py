"""The arena: real memory at a fixed address, for what ``mem_alloc`` and MR buffers allocate.

A region is reserved PROT_NONE at one of a few fixed addresses, so that addresses (and everything derived from them)
do not depend on address randomisation. Inside it, ranges are handed out first fit, lowest address first; every change
is a real system call on exactly that range, and unmapping reserves it again. Beside it lie two reserved windows: the
addresses of model memory, where nothing is ever mapped, and where files and shared memory go that the program asks us
to map. Page tables are cut at multiples of 2 MiB, so where memory lies decides what a fault or an invalidation does in
one step: with an address that the kernel draws, one seed would have several histories.

Left out: growing the arena; a second arena in one process gets the next fixed address. Memory that a program maps
without asking us lies where the kernel puts it.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sortedcontainers import SortedDict

from nicemu.abi.verbs import PAGE_SIZE

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MAP_NORESERVE, MAP_FIXED_NOREPLACE = 0x4000, 0x100000
MAP_32BIT, MAP_HUGETLB, MAP_HUGE_SHIFT = 0x40, 0x40000, 26
MADV_DONTNEED = 4
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2

ARENA_BYTES = 64 << 30
MODEL_BYTES = 4 << 40
"""Addresses only: a mapping of 1 TiB leaves room for others."""
BASES = (0x4000_0000_0000, 0x2000_0000_0000, 0x6000_0000_0000, 0x1000_0000_0000, 0x20_0000_0000)
"""Tried in order. The last one suits 39-bit address spaces."""
MODEL_OFFSET = 0x100_0000_0000
"""From an arena's base to its model window."""
MODEL_BASE = BASES[0] + MODEL_OFFSET
MAPPED_OFFSET, MAPPED_BYTES = MODEL_OFFSET + MODEL_BYTES, 4 << 40
"""The window of mapped files and shared memory, from an arena's base."""
HUGE_PAGE = 2 << 20

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.mmap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_libc.mremap.restype = ctypes.c_void_p
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1


def _check(failed: bool) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mmap(address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """The real ``mmap``."""
    result = _libc.mmap(address, length, prot, flags, fd, offset)
    _check(result in (_FAILED, None))
    return int(result)


def munmap(address: int, length: int) -> None:
    """The real ``munmap``."""
    _check(_libc.munmap(address, length) != 0)


def mprotect(address: int, length: int, prot: int) -> None:
    """The real ``mprotect``."""
    _check(_libc.mprotect(address, length, prot) != 0)


def madvise(address: int, length: int, advice: int) -> None:
    """The real ``madvise``."""
    _check(_libc.madvise(address, length, advice) != 0)


def mremap(address: int, length: int, new_length: int, flags: int, new_address: int = 0) -> int:
    """The real ``mremap``."""
    result = _libc.mremap(address, length, new_length, flags, new_address)
    _check(result in (_FAILED, None))
    return int(result)


class Space:
    """Address ranges handed out first fit from [base, base + size)."""

    def __init__(self, base: int, size: int) -> None:
        self.base, self.end = base, base + size
        self._free: SortedDict[int, int] = SortedDict({base: size})

    def take(self, length: int, alignment: int) -> int:
        """The lowest free range; OSError ENOMEM if there is none."""
        for start, size in self._free.items():
            at = -(-start // alignment) * alignment
            if at + length <= start + size:
                self.take_at(at, length)
                return int(at)
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def take_at(self, at: int, length: int) -> None:
        """Take [at, at + length) out, whatever of it is free."""
        first = max(self._free.bisect_right(at) - 1, 0)
        for start in list(self._free.islice(first)):
            if start >= at + length:
                return
            end = start + self._free[start]
            if end > at:
                del self._free[start]
                if start < at:
                    self._free[start] = at - start
                if end > at + length:
                    self._free[at + length] = end - at - length

    def is_free(self, at: int, length: int) -> bool:
        """Is all of [at, at + length) free?"""
        first = self._free.bisect_right(at) - 1
        if first < 0:
            return False
        start, size = self._free.peekitem(first)
        return bool(at + length <= start + size)

    def give(self, at: int, length: int) -> None:
        """Make [at, at + length) free, joined with its neighbours."""
        self.take_at(at, length)
        after = self._free.pop(at + length, 0)
        before = self._free.bisect_left(at) - 1
        if before >= 0:
            start, size = self._free.peekitem(before)
            if start + size == at:
                self._free[start] = size + length + after
                return
        self._free[at] = length + after

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.end


def _mapping_alignment(flags: int, fd: int) -> int:
    """What the address of a mapping is made a multiple of: 2 MiB or, of hugetlbfs, a larger page (block size of its
    files). :raises OSError: EBADF."""
    if flags & MAP_ANONYMOUS:
        size = 1 << (flags >> MAP_HUGE_SHIFT & 63) if flags & MAP_HUGETLB else 0
    else:
        size = os.fstat(fd).st_blksize
    return size if size > HUGE_PAGE and not size & size - 1 else HUGE_PAGE


def _reserve_again(space: Space, address: int, length: int) -> None:
    mmap(address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED)
    space.give(address, length)


class Arena:
    """One reserved region of real memory, and the two windows that belong to it."""

    def __init__(self, size: int = ARENA_BYTES) -> None:
        self.size = size
        self.base = self._reserve()
        self.model_base = self.base + MODEL_OFFSET
        self.model_end = self.model_base + MODEL_BYTES
        self.space = Space(self.base, size)
        self.mapped = Space(self.base + MAPPED_OFFSET, MAPPED_BYTES)
        """The window of files and shared memory."""

    def _reserve(self) -> int:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
        for base in BASES:
            got: list[tuple[int, int]] = []
            wanted = (base, self.size), (base + MODEL_OFFSET, MODEL_BYTES), (base + MAPPED_OFFSET, MAPPED_BYTES)
            for at, size in wanted:
                try:
                    real = mmap(at, size, PROT_NONE, flags)
                except OSError:
                    break
                got.append((real, size))
                if real != at:  # a kernel without MAP_FIXED_NOREPLACE takes the address as a hint
                    break
            if got == list(wanted):
                return base
            for real, size in got:
                munmap(real, size)
        raise OSError(errno.ENOMEM, f"no room for {self.size >> 30} GiB at any of " + ", ".join(map(hex, BASES)))

    def __contains__(self, address: int) -> bool:
        return address in self.space

    def reserved(self, address: int) -> bool:
        """In the arena or in the model window."""
        return address in self.space or self.model_base <= address < self.model_end

    def map(self, address: int, length: int, prot: int, alignment: int = PAGE_SIZE) -> int:
        """Private zeroed memory at ``address`` (0: the lowest free range); gives the address."""
        if address:
            if address not in self or address + length > self.space.end:
                raise OSError(errno.EINVAL, f"{address:#x} is outside the arena")
            self.space.take_at(address, length)
        else:
            address = self.space.take(length, alignment)
        return mmap(address, length, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED)

    def map_shared(self, address: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
        """The program's ``mmap`` of a file or of shared memory: at ``address`` if the flags insist on it, below 4 GiB
        where the kernel likes if they want that, else at the lowest free place of the window; gives the address.

        :raises OSError: what the kernel says; ENOMEM, the window is full.
        """
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT):
            address = mmap(address, length, prot, flags, fd, offset)
            if address in self.mapped:
                self.mapped.take_at(address, length)
            return address
        alignment = _mapping_alignment(flags, fd)
        size = length if alignment == HUGE_PAGE else -(-length // alignment) * alignment  # hugetlbfs rounds up
        address = self.mapped.take(size, alignment)
        try:
            return mmap(address, length, prot, flags | MAP_FIXED, fd, offset)
        except OSError:
            self.unmap_shared(address, size)  # the kernel may have cleared the place
            raise

    def unmap(self, address: int, length: int) -> None:
        """``munmap``: the range is reserved again, in one step, so that nothing else can land in it."""
        _reserve_again(self.space, address, length)

    def unmap_shared(self, address: int, length: int) -> None:
        """``munmap`` of anything outside the arena; in the window the range is reserved again."""
        if address in self.mapped and address + length <= self.mapped.end:
            _reserve_again(self.mapped, address, length)
        else:
            munmap(address, length)

    def protect(self, address: int, length: int, prot: int) -> None:
        """``mprotect``."""
        mprotect(address, length, prot)

    def discard(self, address: int, length: int) -> None:
        """``madvise(MADV_DONTNEED)``: pages read as zeros from now on."""
        madvise(address, length, MADV_DONTNEED)

    def remap(self, address: int, length: int, new_address: int) -> None:
        """Move pages to ``new_address``, which :meth:`map` gave; the old range is reserved again."""
        mremap(address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, new_address)
        self.unmap(address, length)

    def close(self) -> None:
        """Give the addresses back. Nothing may point into the arena any more."""
        munmap(self.base, self.size)
        munmap(self.model_base, MODEL_BYTES)
        munmap(self.mapped.base, MAPPED_BYTES)
