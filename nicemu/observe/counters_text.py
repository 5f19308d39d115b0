"""Counters as text: what ``nicemu run --stats`` prints and ``nicemu stats`` shows again.

A snapshot (``nicemu.lab.counters``) in, lines out; counters that are 0 are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 10


def lines(snapshot: Mapping[str, Any]) -> Iterator[str]:
    """The text of a snapshot: MRs and ports under the kernel's names, NICs, host, and what the checkers found."""
    yield (f"After {snapshot['virtual_ns'] / 1e6:.3f} ms of virtual time, {snapshot['device_events']} device events, "
           f"seed {snapshot['seed']}, discipline {snapshot['discipline']}")  # fmt: skip
    for number, counters in snapshot["mr"].items():
        yield _line(f"mr {number}", counters)
    for kind in ("nic", "port"):
        for name, counters in snapshot[kind].items():
            yield _line(name, counters)
    yield _line("host", snapshot["host"])
    if any(snapshot["driver"].values()):
        yield _line("driver", snapshot["driver"])
    for note in snapshot["notes"]:
        yield f"  {note}"
    yield _entry("checks", f"{snapshot['lock_reports']} lock reports, {snapshot['dma_violations']} DMA violations")
    yield _entry("history", snapshot["history"])


def _entry(name: str, text: str) -> str:
    return f"  {name:<{WIDTH}} {text}"


def _line(name: str, counters: Mapping[str, int | str]) -> str:
    numbers = [f"{key} {value}" for key, value in counters.items() if value and isinstance(value, int)]
    return _entry(name, "  ".join(numbers) or "nothing")


def flat(snapshot: Mapping[str, Any]) -> dict[str, int]:
    """Every counter by a dotted name: ``mr.1.page_faults``, ``nic.nicemu0.packets_sent``, ``host.pgfault``."""
    found = {name: snapshot[name] for name in ("virtual_ns", "device_events", "lock_reports", "dma_violations")}
    for kind in ("mr", "nic", "port", "qp", "link"):
        for number, counters in snapshot[kind].items():
            found |= {f"{kind}.{number}.{name}": value for name, value in counters.items() if isinstance(value, int)}
    for kind in ("host", "driver"):
        found |= {f"{kind}.{name}": value for name, value in snapshot[kind].items()}
    return found
