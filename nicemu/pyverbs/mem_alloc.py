"""The memory calls of the C library, on real addresses, as the emulated host carries them out.

A program that goes past this module (mmap, ctypes) is honoured as well; here the emulator sees each call as it is made.
Lengths and offsets are in bytes unless said otherwise.
"""

from __future__ import annotations

import mmap as _mmap
from typing import Any

from nicemu.pyverbs import _kernel
from nicemu.pyverbs._fields import I32, U32, U64
from nicemu.pyverbs.base import PyverbsRDMAErrno

__all__ = [
    "MAP_ANONYMOUS_",
    "MAP_FIXED_",
    "MAP_GROWSDOWN_",
    "MAP_HUGETLB_",
    "MAP_LOCKED_",
    "MAP_NORESERVE_",
    "MAP_POPULATE_",
    "MAP_PRIVATE_",
    "MAP_SHARED_",
    "MAP_STACK_",
    "PROT_EXEC_",
    "PROT_NONE_",
    "PROT_READ_",
    "PROT_WRITE_",
    "PyverbsRDMAErrno",
    "free",
    "madvise",
    "malloc",
    "mmap",
    "munmap",
    "posix_memalign",
    "read",
    "read32",
    "read64",
    "write",
    "writebe32",
    "writebe64",
]

PROT_NONE_, PROT_READ_, PROT_WRITE_, PROT_EXEC_ = 0, _mmap.PROT_READ, _mmap.PROT_WRITE, _mmap.PROT_EXEC
MAP_SHARED_, MAP_PRIVATE_, MAP_ANONYMOUS_ = _mmap.MAP_SHARED, _mmap.MAP_PRIVATE, _mmap.MAP_ANONYMOUS
MAP_FIXED_ = 0x10  # these six as in Linux's mman.h
MAP_GROWSDOWN_ = 0x100
MAP_LOCKED_ = 0x2000
MAP_NORESERVE_ = 0x4000
MAP_POPULATE_ = 0x8000
MAP_STACK_ = 0x20000
MAP_HUGETLB_ = 0x40000
_MADV_DONTNEED = 4


def _process() -> Any:
    return _kernel.endpoint().process


def mmap(
    addr: int = 0,
    length: int = 100,
    prot: int = PROT_READ_ | PROT_WRITE_,
    flags: int = MAP_PRIVATE_ | MAP_ANONYMOUS_,
    fd: int = 0,
    offset: int = 0,
) -> int:
    """Map memory; its address. MemoryError: the kernel refused."""
    file = -1 if flags & MAP_ANONYMOUS_ else I32(fd)
    try:
        address: int = _process().mmap(U64(length), I32(prot), I32(flags), U64(addr), file, U64(offset))
    except OSError as error:
        raise MemoryError("Failed to mmap memory") from error
    return address


def munmap(addr: int, length: int) -> None:
    """Unmap memory. MemoryError: the kernel refused."""
    try:
        _process().munmap(U64(addr), U64(length))
    except OSError as error:
        raise MemoryError("Failed to munmap requested memory") from error


def madvise(addr: int, length: int, flags: int = _MADV_DONTNEED) -> None:
    """Advise the kernel about memory; `flags` is the advice. PyverbsRDMAError with its errno: the kernel refused."""
    try:
        _process().madvise(U64(addr), U64(length), I32(flags))
    except OSError as error:
        raise _kernel.failed("Failed to madvise memory", error) from error


def malloc(size: int) -> int:
    """Allocate memory; its address. MemoryError: there is none."""
    try:
        address: int = _process().malloc(U64(size))
    except OSError as error:
        raise MemoryError("Failed to allocate memory") from error
    return address


def posix_memalign(size: int, alignment: int = 8) -> int:
    """Allocate zeroed memory at a multiple of `alignment`, a power of two; its address. MemoryError: there is none."""
    try:
        address: int = _process().posix_memalign(U64(size), U64(alignment))
    except OSError as error:
        raise MemoryError("Failed to allocate memory") from error
    return address


def free(ptr: int) -> None:
    """Give back what `malloc` or `posix_memalign` gave."""
    _process().free(U64(ptr))


def as_bytes(data: Any, length: int) -> bytes:
    """`length` bytes of `data` (str is encoded), zeros after its end, as a C copy may read past a short buffer."""
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"expected bytes, {type(data).__name__} found")
    return bytes(data[:length]).ljust(length, b"\0")


def write(addr: int, data: Any, length: int, offset: int = 0) -> None:
    """Copy `length` bytes of `data` (str or bytes) to `addr + offset`."""
    _process().write(U64(addr) + I32(offset), as_bytes(data, U64(length)))


def read(addr: int, length: int, offset: int = 0) -> bytes:
    """`length` bytes at `addr + offset`."""
    data: bytes = _process().read(U64(addr + offset), U64(length))
    return data


def writebe32(addr: int, val: int, offset: int = 0) -> None:
    """Store the low 32 bits of `val` big-endian; `offset` counts words of 4 bytes."""
    _process().write(U64(addr) + 4 * offset, (U64(val) & U32.high).to_bytes(4, "big"))


def writebe64(addr: int, val: int, offset: int = 0) -> None:
    """Store `val` big-endian; `offset` counts words of 8 bytes."""
    _process().write(U64(addr) + 8 * offset, U64(val).to_bytes(8, "big"))


def read32(addr: int, offset: int = 0) -> int:
    """The 32-bit value there, in host order; `offset` counts words of 4 bytes."""
    return int.from_bytes(read(addr, 4, 4 * offset), "little")


def read64(addr: int, offset: int = 0) -> int:
    """The 64-bit value there, in host order; `offset` counts words of 8 bytes."""
    return int.from_bytes(read(addr, 8, 8 * offset), "little")
