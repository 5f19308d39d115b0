"""The program's system calls as host-thread steps, with errno as Linux gives it.

Anonymous private memory comes from the arena (real bytes at a fixed address) or from model frames. File-backed or
shared mappings (in a window at a fixed address), and addresses outside the arena, are mapped for real and adopted as
program memory; files and shared memory of the model: ``file_calls.py``; graphics buffers: ``gpu_calls.py``.
"""

from __future__ import annotations

import errno
import os
from typing import Literal

from nicemu.memory import arena as real_memory
from nicemu.memory.arena import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, Arena
from nicemu.mm.address_space import PAGE_SIZE, AddressSpace
from nicemu.mm.file_calls import FileCalls
from nicemu.mm.gpu_calls import GpuCalls
from nicemu.mm.host import Host
from nicemu.mm.hugetlb import MAP_HUGETLB, hugetlb_mmap
from nicemu.mm.madvise import do_madvise
from nicemu.mm.mlock import do_mlock, do_munlock
from nicemu.mm.numa import move_pages
from nicemu.mm.userfaultfd import Userfaultfd
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

Memory = Literal["arena", "model"]
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _whole_pages(address: int, length: int) -> tuple[int, int]:
    start = address & -PAGE_SIZE
    return start, start + _pages_up(address - start + length)


def _pages_up(length: int) -> int:
    return -(-length // PAGE_SIZE) * PAGE_SIZE


class Process(FileCalls, GpuCalls):
    """A program on the host: what it may ask the kernel for. ``arena`` may be None for model memory only."""

    def __init__(self, host: Host, arena: Arena | None, mm: AddressSpace, memory: Memory = "arena") -> None:
        self.host, self.arena, self.mm, self.memory = host, arena, mm, memory
        if mm.owns_memory:
            mm.arena = arena
        self.allocated: dict[int, int] = {}
        """Lengths of what :meth:`posix_memalign` gave, by address."""
        self._children = 0

    def mmap(self, length: int, prot: int = PROT_READ | PROT_WRITE, flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
             address: int = 0, fd: int = -1, offset: int = 0, memory: Memory | None = None) -> Steps[int]:  # fmt: skip
        """``mmap``; an ``address`` without MAP_FIXED is a hint that is not taken. MAP_HUGETLB: model memory."""
        if length <= 0 or address % PAGE_SIZE or offset % PAGE_SIZE:
            raise _error(errno.EINVAL)
        length = _pages_up(length)
        fixed = bool(flags & MAP_FIXED)
        private = flags & MAP_PRIVATE and flags & MAP_ANONYMOUS
        kind = self._kind(address if fixed else 0, memory)
        if flags & MAP_SHARED and flags & MAP_ANONYMOUS and kind == FrameKind.MODEL and not fixed:
            return (yield from self.mmap_shared(length, prot))
        if private and kind == FrameKind.MODEL and flags & MAP_HUGETLB:
            return (yield from hugetlb_mmap(self.mm, length, prot & 7, flags, address if fixed else 0))
        if private and kind != FrameKind.PROGRAM:
            return (yield from self.mm.mmap(length, prot & 7, kind, address if fixed else 0))
        if fixed and self.mm.arena is not None and self.mm.arena.reserved(address):
            raise _error(errno.EINVAL)
        if fixed:
            yield from self.mm.munmap(address, length)
        yield self.host.costs.syscall_ns
        real_mmap = self.mm.arena.map_shared if self.mm.arena is not None else real_memory.mmap
        address = real_mmap(address, length, prot, flags, fd, offset)
        yield from self.mm.munmap(address, length, real=False)  # the program unmapped what was here behind our back
        self._adopt(address, length)
        return address

    def munmap(self, address: int, length: int) -> Steps[None]:
        """``munmap``. Memory that the model does not know is unmapped for real."""
        self._check_range(address, length)
        self._adopt(address, length)
        yield from self.mm.munmap(address, _pages_up(length))

    def mprotect(self, address: int, length: int, prot: int) -> Steps[None]:
        """``mprotect``."""
        if address % PAGE_SIZE:
            raise _error(errno.EINVAL)
        if length:
            self._adopt(address, length)
            yield from self.mm.mprotect(address, _pages_up(length), prot & 7)

    def madvise(self, address: int, length: int, advice: int) -> Steps[None]:
        """``madvise``. Advice that the model does not know goes to the real kernel, for real memory."""
        if address % PAGE_SIZE or length < 0:
            raise _error(errno.EINVAL)
        if not length:
            return
        length = _pages_up(length)
        self._adopt(address, length)
        yield from do_madvise(self.mm, address, address + length, advice)

    def mlock(self, address: int, length: int) -> Steps[None]:
        """``mlock``."""
        yield self.host.costs.syscall_ns
        yield from do_mlock(self.mm, *_whole_pages(address, length))

    def munlock(self, address: int, length: int) -> Steps[None]:
        """``munlock``."""
        yield self.host.costs.syscall_ns
        yield from do_munlock(self.mm, *_whole_pages(address, length))

    def move_pages(self, addresses: list[int], node: int) -> Steps[list[int]]:
        """``move_pages`` of this process: the node of each page afterwards, or a negative errno."""
        yield self.host.costs.syscall_ns
        return (yield from move_pages(self.mm, addresses, node))

    def userfaultfd(self, asynchronous: bool = False) -> Steps[Userfaultfd]:
        """``userfaultfd``: a handler, to be registered."""
        yield self.host.costs.syscall_ns
        return Userfaultfd(self.mm, asynchronous)

    def mremap(self, address: int, old_length: int, new_length: int, flags: int = MREMAP_MAYMOVE,
               new_address: int = 0) -> Steps[int]:  # fmt: skip
        """``mremap``; ``new_address`` counts with MREMAP_FIXED, for model memory."""
        known = flags in (0, MREMAP_MAYMOVE, MREMAP_MAYMOVE | MREMAP_FIXED)
        if address % PAGE_SIZE or new_address % PAGE_SIZE or not new_length or not old_length or not known:
            raise _error(errno.EINVAL)
        lengths = _pages_up(old_length), _pages_up(new_length)
        if flags & MREMAP_FIXED:
            return (yield from self.mm.mremap_to(address, *lengths, new_address))
        return (yield from self.mm.mremap(address, *lengths, may_move=bool(flags & MREMAP_MAYMOVE)))

    def posix_memalign(self, size: int, alignment: int, memory: Memory | None = None) -> Steps[int]:
        """``posix_memalign``, in whole pages, zeroed."""
        if alignment < 8 or alignment & (alignment - 1):
            raise _error(errno.EINVAL)
        length = _pages_up(max(size, 1))
        address = yield from self.mm.mmap(
            length, PROT_READ | PROT_WRITE, self._kind(0, memory), alignment=max(alignment, PAGE_SIZE)
        )
        self.allocated[address] = length
        return address

    def malloc(self, size: int, memory: Memory | None = None) -> Steps[int]:
        """``malloc``, in whole pages."""
        return (yield from self.posix_memalign(size, 16, memory))

    def free(self, address: int) -> Steps[None]:
        """``free`` of what :meth:`malloc` or :meth:`posix_memalign` gave."""
        if not address:
            return
        if address not in self.allocated:
            raise _error(errno.EINVAL)
        yield from self.mm.munmap(address, self.allocated.pop(address))

    def setrlimit_memlock(self, limit: int | None) -> Steps[None]:
        """``setrlimit(RLIMIT_MEMLOCK)`` in bytes, None: unlimited. EPERM is not modelled: anybody may raise it."""
        yield self.host.costs.syscall_ns
        self.mm.memlock.limit = None if limit is None else limit // PAGE_SIZE

    def fork(self) -> Steps[Process]:
        """The child as the model sees it."""
        self._children += 1
        child = yield from self.mm.fork(f"{self.mm.name}.{self._children}")
        return Process(self.host, self.arena, child, self.memory)

    def exit(self) -> Steps[None]:
        """The process ends."""
        yield from self.mm.exit()

    def read(self, address: int, length: int) -> Steps[bytes]:
        """The CPU reads memory; OSError EFAULT where it may not."""
        self._adopt(address, length)
        return (yield from self.mm.copy_from_user(address, length))

    def write(self, address: int, data: bytes) -> Steps[None]:
        """The CPU writes memory; OSError EFAULT where it may not."""
        self._adopt(address, len(data))
        yield from self.mm.copy_to_user(address, data)

    def _kind(self, address: int, memory: Memory | None) -> FrameKind:
        """Kind of an anonymous private mapping."""
        if address:
            if self.mm.arena is None or address not in self.mm.arena:
                low, high = self.mm.model_window
                return FrameKind.MODEL if low <= address < high else FrameKind.PROGRAM
            return FrameKind.ARENA
        return FrameKind.ARENA if (memory or self.memory) == "arena" else FrameKind.MODEL

    def _check_range(self, address: int, length: int) -> None:
        if address % PAGE_SIZE or length <= 0:
            raise _error(errno.EINVAL)

    def _adopt(self, address: int, length: int) -> None:
        """A call on memory that the model has not seen. The real system call or access says whether it is there."""
        if self.mm.owns_memory and length > 0:
            self.mm.adopt(address, length)
