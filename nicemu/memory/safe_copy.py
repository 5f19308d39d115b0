"""Fault-safe access to the process's own memory, from Python.

``process_vm_readv``/``writev`` on ourselves stop with a short count where memory is not mapped or not permitted.
Where a sandbox forbids them, ``pwrite``/``pread`` through a memfd do the same. All calls keep the GIL, so no other
Python thread moves memory under them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

PAGE = 4096
SCRATCH_BYTES = 1 << 16
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23

_libc = ctypes.PyDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_vm_arguments = (ctypes.c_int, ctypes.POINTER(_Iovec), ctypes.c_ulong, ctypes.POINTER(_Iovec), ctypes.c_ulong,
                 ctypes.c_ulong)  # fmt: skip
_libc.process_vm_readv.argtypes = _libc.process_vm_writev.argtypes = _vm_arguments
_libc.process_vm_readv.restype = _libc.process_vm_writev.restype = ctypes.c_ssize_t
_libc.pread.argtypes = _libc.pwrite.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64)
_libc.pread.restype = _libc.pwrite.restype = ctypes.c_ssize_t
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.restype = ctypes.c_int

_scratch: dict[int, int] = {}
"""memfd by pid: after fork the child makes its own."""
_method: list[str] = []
_maps: list[mmap.mmap] = []
_populate: list[bool] = []


def method() -> str:
    """How this process reads and writes: ``process_vm`` or ``memfd``."""
    if not _method:
        probe = ctypes.create_string_buffer(b"x", 1)
        _method.append("process_vm")
        if _read_vm(ctypes.addressof(probe), 1) != b"x":
            _method[0] = "memfd"
    return _method[0]


def scratch() -> tuple[int, int]:
    """For compiled copies where ``process_vm_*`` is forbidden: a memfd and where its first page is mapped. (0, 0)
    where it is allowed."""
    if method() == "process_vm":
        return 0, 0
    if not _maps:
        os.ftruncate(_memfd(), SCRATCH_BYTES)
        _maps.append(mmap.mmap(_memfd(), SCRATCH_BYTES))
    return _memfd(), ctypes.addressof(ctypes.c_char.from_buffer(_maps[0]))


def read(address: int, length: int) -> bytes:
    """Bytes at ``address``, fewer if they stop being readable."""
    if length <= 0:
        return b""
    return _read_vm(address, length) if method() == "process_vm" else _read_memfd(address, length)


def write(address: int, data: bytes) -> int:
    """Write to ``address``; gives how many bytes went before memory stopped being writable."""
    if not data:
        return 0
    return _write_vm(address, data) if method() == "process_vm" else _write_memfd(address, data)


def first_bad_page(address: int, pages: int, write_access: bool) -> int | None:
    """Address of the first page of a range that may not be read (or written), None if all may.

    Contents are not touched where the kernel has ``MADV_POPULATE_*`` (5.14): it faults the pages in as an access
    would. Elsewhere a byte of each page is read and, for write access, written back.
    """
    if _can_populate():
        advice = MADV_POPULATE_WRITE if write_access else MADV_POPULATE_READ
        if _libc.madvise(address, pages * PAGE, advice) == 0:
            return None
        if pages == 1:
            return address
        half = pages // 2
        bad = first_bad_page(address, half, write_access)
        return bad if bad is not None else first_bad_page(address + half * PAGE, pages - half, write_access)
    for at in range(address, address + pages * PAGE, PAGE):
        byte = read(at, 1)
        if not byte or (write_access and write(at, byte) != 1):
            return at
    return None


def _can_populate() -> bool:
    """Does the kernel know MADV_POPULATE_READ? Asked once, on a page that is fine."""
    if not _populate:
        probe = ctypes.create_string_buffer(2 * PAGE)
        _populate.append(_libc.madvise(-(-ctypes.addressof(probe) // PAGE) * PAGE, PAGE, MADV_POPULATE_READ) == 0)
    return _populate[0]


def _read_vm(address: int, length: int) -> bytes:
    buffer = ctypes.create_string_buffer(length)
    local, remote = _Iovec(ctypes.addressof(buffer), length), _Iovec(address, length)
    count = _libc.process_vm_readv(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return buffer.raw[: max(count, 0)]


def _write_vm(address: int, data: bytes) -> int:
    local = _Iovec(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
    remote = _Iovec(address, len(data))
    count: int = _libc.process_vm_writev(os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return max(count, 0)


def _memfd() -> int:
    pid = os.getpid()
    if pid not in _scratch:
        _scratch.clear()
        _scratch[pid] = os.memfd_create("nicemu-scratch", os.MFD_CLOEXEC)
    return _scratch[pid]


def _checked(count: int) -> int:
    if count < 0 and ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return max(count, 0)


def _read_memfd(address: int, length: int) -> bytes:
    return os.pread(_memfd(), _checked(_libc.pwrite(_memfd(), address, length, 0)), 0)


def _write_memfd(address: int, data: bytes) -> int:
    os.pwrite(_memfd(), data, 0)
    return _checked(_libc.pread(_memfd(), address, len(data), 0))
