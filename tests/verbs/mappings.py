"""Memory that the program maps, changes and looks at by itself: by system calls, loads and stores."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from pyverbs import mem_alloc

from .libc import AT_ADDRESS, MAY_MOVE, call
from .memory import ALL, ANONYMOUS, DONTNEED, PAGE, READ_WRITE, Region, make_pattern

READ_ONLY = mem_alloc.PROT_READ_
SHARED = mem_alloc.MAP_SHARED_ | mem_alloc.MAP_ANONYMOUS_
FREE, REMOVE, DONTFORK, WIPEONFORK = 8, 9, 10, 18  # advice of madvise, as in Linux's mman.h
WILLNEED, COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE = 3, 20, 21, 22, 23
KEEP_SIZE, PUNCH_HOLE = 1, 2  # modes of fallocate


class Mapping(Region):
    """`pages` pages mapped with `flags` (MAP_*_), of the file `fd` if there is one, and their MR on `side`."""

    def __init__(self, side: Any, pages: int = 1, *, flags: int = ANONYMOUS, fd: int = -1, prot: int = READ_WRITE,
                 access: int = ALL, odp: bool = True, address: int | None = None) -> None:  # fmt: skip
        self.length = pages * PAGE
        self.address = call("mmap", None, self.length, prot, flags, fd, 0) if address is None else address
        self.mr = self._register(side, access, odp)
        side.regions.append(self)

    def fill(self, pattern: bytes | int, offset: int = 0) -> None:
        data = make_pattern(pattern, self.length - offset) if isinstance(pattern, int) else pattern
        ctypes.memmove(self.address + offset, data, len(data))

    def bytes(self, offset: int = 0, length: int | None = None) -> bytes:
        return ctypes.string_at(self.address + offset, self.length - offset if length is None else length)

    def advise(self, advice: int, offset: int = 0, length: int | None = None) -> None:
        """madvise. OSError: the kernel refused."""
        call("madvise", self.address + offset, self.length - offset if length is None else length, advice)

    def discard(self, offset: int = 0, length: int | None = None) -> None:
        self.advise(DONTNEED, offset, length)

    def unmap(self, offset: int = 0, length: int | None = None) -> None:
        call("munmap", self.address + offset, self.length - offset if length is None else length)

    def map_anew(self, offset: int = 0, length: int | None = None) -> None:
        size = self.length - offset if length is None else length
        call("mmap", self.address + offset, size, READ_WRITE, ANONYMOUS | mem_alloc.MAP_FIXED_, -1, 0)

    def protect(self, prot: int, offset: int = 0, length: int | None = None) -> None:
        call("mprotect", self.address + offset, self.length - offset if length is None else length, prot)

    def move(self) -> int:
        """Move the pages elsewhere; their new address. The MR and `address` stay. Nothing is mapped there any more."""
        place = call("mmap", None, self.length, 0, ANONYMOUS, -1, 0)
        return call("mremap", self.address, self.length, self.length, MAY_MOVE | AT_ADDRESS, place)

    def check_guards(self) -> None:
        """It has none."""

    def release(self) -> None:
        """Unmap what is left. The MR must be gone."""
        call("munmap", self.address, self.length)


def file_of(data: bytes) -> int:
    """A descriptor of a new file in memory with these bytes."""
    fd = os.memfd_create("nicemu-verbs")
    os.write(fd, data)
    return fd
