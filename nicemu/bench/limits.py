"""Limits that rows are compared with: what no emulator of this kind can be faster than on this machine just now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nicemu.bench import native
from nicemu.bench.event_loop.copies import LINE_BYTES, copy_often
from nicemu.bench.event_loop.loop import event_loop
from nicemu.bench.measure import Batch, Counts, Limit, Watch
from nicemu.bench.python_loop import Loop
from nicemu.tables.world import lazy_bytes

BARE, C_LOOP, MEMCPY = "bare event loop", "C event loop", "memcpy"
PYTHON, PYTHON_LOOP = "empty Python calls", "events of a loop in Python"
COPIED_BYTES, CALLS = 256 << 20, 200_000


def bare(size: int, mtu: int = 4096, qps: int = 1, unit: str = "packets/s", copies: bool = True) -> Limit:
    """The bare loop in numba with messages of that size."""
    return Limit(BARE, unit, event_loop(size, mtu, qps, copies))


def memcpy(size: int) -> Limit:
    """Copying a buffer of that size onto another, both in the caches if they fit."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        source, target = (lazy_bytes(size + LINE_BYTES) for _ in range(2))
        source[:], target[:] = 1, 0
        copies = max(1, min(CALLS, COPIED_BYTES // size))

        def batch(watch: Watch) -> Counts:
            with watch:
                copy_often(target.ctypes.data, source.ctypes.data, size, copies)
            return {"bytes": copies * size}

        yield batch

    return Limit(MEMCPY, "GB/s", opener)


def python_calls() -> Limit:
    """Calls of an empty Python function, by the time of a call."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        def nothing() -> None:
            pass

        def batch(watch: Watch) -> Counts:
            with watch:
                for _ in range(CALLS):
                    nothing()
            return {"calls": CALLS}

        yield batch

    return Limit(PYTHON, "us", opener)


def python_loop() -> Limit:
    """An event loop in Python, by the time of an event."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        yield Loop().batch

    return Limit(PYTHON_LOOP, "us", opener)


def c_loop(size: int, mtu: int = 4096) -> Limit:
    """The bare loop in C, compiled on the spot."""
    return Limit(C_LOOP, "packets/s", native.reports(_c_program, size, mtu))


def _c_program() -> Path:
    return native.built(Path(__file__).parent / "c_loop.c", ("cc", "gcc", "clang"))
