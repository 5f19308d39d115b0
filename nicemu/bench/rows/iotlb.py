"""Translations: 4 KiB WRITEs to one page, which the IOTLB has, and round more pages than it has lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicemu.bench import labs, limits
from nicemu.bench.flow import Flow, Kind, connected
from nicemu.bench.measure import Batch, Case, Counts, Opener, Watch

PAGES = 4096
"""Four times the lines of the default profile's IOTLB."""


def cases() -> Iterator[Case]:
    """Hits and misses."""
    bare, also = limits.bare(4096), ("packets/s", "GB/s")
    for name, places, unit in (("IOTLB hits", 1, "hits/s"), ("IOTLB misses", PAGES, "misses/s")):
        note = f"4 KiB WRITEs round {places:,} page{'s' if places > 1 else ''}; both NICs translate"
        yield Case(name, "iotlb", unit, _lookups(Kind(size=4096, places=places)), (bare,), also, note)


def _lookups(kind: Kind) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened() as bench:
            made = Flow(bench, kind, connected(bench, kind))

            def found() -> tuple[int, int]:
                rows = [device.row for device in bench.lab.devices]
                return sum(int(row.iotlb_hits) for row in rows), sum(int(row.iotlb_misses) for row in rows)

            def batch(watch: Watch) -> Counts:
                hits, misses = found()
                done = made.batch(watch)
                return done | {"hits": found()[0] - hits, "misses": found()[1] - misses}

            yield batch
            made.check()

    return opener
