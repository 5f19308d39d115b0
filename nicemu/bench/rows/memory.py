"""Resident memory, each in a process of its own (``nicemu.bench.residence``)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nicemu.bench import residence
from nicemu.bench.measure import Absent, Batch, Case, Counts, Limit, Opener, Watch

EMPTY = 'print(int(open("/proc/self/statm").read().split()[1]) * 4096)'
RADIX = f"print({residence.PAGES} * 16)"
"""A word a page in each of two tables."""


def cases() -> Iterator[Case]:
    """An idle lab, a queue pair, a million pages."""
    python = Limit("python -c pass", "MB", _prints("-c", EMPTY))
    words = Limit("a word a page in either table", "MB", _prints("-c", RADIX))
    for name, unit, what, against, note in (
        ("idle lab", "MB", "idle", (python,), "two NICs, one device open"),
        (
            "an RC QP, device rows",
            "bytes",
            "qp",
            (),
            f"connected, queues of 16; growth of all tables by {residence.QPS}",
        ),
        (
            "1 M mapped pages, MTT and PTE",
            "MB",
            "translations",
            (words,),
            "an on-demand MR of 4 GiB of simulated RAM",
        ),
        ("1 M mapped pages, with frames and reverse maps", "MB", "pages", (words,), "growth of the whole process"),
    ):
        opener = _prints("-m", "nicemu.bench.residence", what)
        yield Case(name, "memory", unit, opener, against, (), note, seconds=0, runs=1)


def _prints(*arguments: str) -> Opener:
    """A Python process that prints a number of bytes."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        def batch(watch: Watch) -> Counts:
            with watch:
                done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                raise Absent(f"{' '.join(arguments)}: {done.stderr.strip()[-200:]}")
            return {"bytes": float(done.stdout)}

        yield batch

    return opener
