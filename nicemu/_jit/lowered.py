"""What numba's front end makes of the engine: LLVM's code, for no CPU in particular. A release brings it along.

With it the first run on a machine leaves out numba, which takes two thirds of its time. What LLVM makes of it does the
same as what would be lowered there, and is the same machine code if Python and numba are those of the release. It is
used only for the same kernel sources (the digest in a file's name), by an LLVM that is not older than the one it comes
from (the folder's name), on the same kind of machine, and without settings of numba's. Otherwise, as in a checkout,
numba comes first.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from nicemu._jit import object_code
from nicemu._jit.back_end import here

FOLDER = object_code.PACKAGE / "_lowered"


@functools.cache
def _folder() -> Path | None:
    """The newest that this LLVM can read."""
    versions = [int(path.name) for path in FOLDER.glob("*") if path.name.isdigit()]
    usable = [version for version in versions if version <= llvm.llvm_version_info[0]]
    return FOLDER / str(max(usable)) if usable else None


def _name(function: Callable[..., Any], arguments: int, returns: bool) -> str:
    key = object_code.key(function, (arguments, returns), object_code.source_digest())
    return f"{function.__module__}.{function.__qualname__}-{key}"


def find(function: Callable[..., Any], arguments: int, returns: bool) -> tuple[str, Any] | None:
    """A function's name in its LLVM module, and the module; None: no release brought it, or it is no use here."""
    folder = None if object_code.settings() else _folder()
    content = folder and object_code.read(folder / _name(function, arguments, returns))
    if not content:
        return None
    try:
        native, _, code = zlib.decompress(content).partition(b"\0")
        module = llvm.parse_bitcode(code)
    except (zlib.error, RuntimeError):  # a checkout's, from long ago; or not for this LLVM
        return None
    return (native.decode(), module) if module.triple == here().triple else None


def save(folder: Path, function: Callable[..., Any], arguments: int, returns: bool, native: str, module: Any) -> bool:
    """Keep what was lowered, below ``folder``. False: it is for CPUs with certain instructions only."""
    if "@llvm.x86." in str(module):
        return False
    file = folder / str(llvm.llvm_version_info[0]) / _name(function, arguments, returns)
    object_code.write(file, zlib.compress(native.encode() + b"\0" + module.as_bitcode(), 9))
    return True
