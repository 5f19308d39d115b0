"""Labs to measure in: two NICs on a link of 100 Gb/s and 1 us unless said, sanitizer and trace off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nicemu import lab as labs
from nicemu.config import load_config
from nicemu.uverbs import session
from nicemu.workloads.bench import Bench


@contextmanager
def opened(**fields: Any) -> Iterator[Bench]:
    """A lab of its own, which programs see until it is closed; one that was open comes back then."""
    before = session.current()
    lab = labs.open(load_config(None, {"nics": 2, "sanitizer": False} | fields))
    session.install(lab.endpoint, lab)
    bench = Bench(lab)
    try:
        yield bench
        bench.close()
    finally:
        if before is None:
            session.reset()
        else:
            session.install(before.endpoint, before)
            lab.close()
