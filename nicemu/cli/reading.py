"""Reading a long trace, with a sign of life on a terminal."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PERIOD_S = 1.0
CHECKED_EVERY = 4096
"""Events between looks at the clock."""


def reading(trace: Path) -> Iterator[Any]:
    """The events of a trace."""
    from nicemu.observe.trace_reader import read

    if not sys.stderr.isatty():
        yield from read(trace)
        return
    due = time.monotonic() + PERIOD_S
    text = ""
    for number, event in enumerate(read(trace), 1):
        yield event
        if number % CHECKED_EVERY == 0 and time.monotonic() >= due:
            due = time.monotonic() + PERIOD_S
            text = f"nicemu: {trace.name}: {number:,} events, at {event.time / 1e6:,.1f} ms of virtual time"
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
    if text:
        print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)
