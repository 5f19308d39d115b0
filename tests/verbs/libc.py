"""System calls that pyverbs.mem_alloc has not, as the C library makes them."""

from __future__ import annotations

import ctypes
import os
from typing import Any

MAY_MOVE, AT_ADDRESS = 1, 2  # flags of mremap

_SIZE, _POINTER, _INT = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
_CALLS: dict[str, tuple[Any, list[Any]]] = {
    "mmap": (_POINTER, [_POINTER, _SIZE, _INT, _INT, _INT, ctypes.c_long]),
    "mremap": (_POINTER, [_POINTER, _SIZE, _SIZE, _INT, _POINTER]),
    "munmap": (_INT, [_POINTER, _SIZE]),
    "madvise": (_INT, [_POINTER, _SIZE, _INT]),
    "mprotect": (_INT, [_POINTER, _SIZE, _INT]),
    "mlock": (_INT, [_POINTER, _SIZE]),
    "fallocate": (_INT, [_INT, _INT, ctypes.c_long, ctypes.c_long]),
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """A call of the C library. OSError with its errno when it gives -1."""
    function = getattr(_LIBC, name)
    function.restype, function.argtypes = _CALLS[name]
    result = function(*arguments)
    if result in (-1, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result or 0)


class Calls:
    """As the emulated host has them."""

    def mprotect(self, address: int, length: int, prot: int) -> None:
        call("mprotect", address, length, prot)

    def mremap(self, address: int, old_length: int, new_length: int) -> int:
        """The address afterwards: it moves where there is no room to grow (MREMAP_MAYMOVE)."""
        return call("mremap", address, old_length, new_length, MAY_MOVE, None)
