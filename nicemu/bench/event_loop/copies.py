# mypy: ignore-errors
"""The copy that every byte needs: what moving payload cannot be faster than."""

from pathlib import Path

from nicemu._jit import copy_bytes, entry

LINE_BYTES = 64


@entry("void(int64, int64, int64, int64)", folder=Path(__file__).parent)
def copy_often(target, source, size, times):
    """Copy a buffer so many times, every other time a cache line further on: no two copies in a row are the same, or
    the compiler could leave one out."""
    for i in range(times):
        at = (i & 1) * LINE_BYTES
        copy_bytes(target + at, source + at, size)
