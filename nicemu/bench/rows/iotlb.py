"""Translations: 4 KiB WRITEs to one page, which the IOTLB has, and round more pages than it has lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicemu.bench import labs, limits
from nicemu.bench.flow import Flow, Kind, connected
from nicemu.bench.measure import Batch, Case, Counts, Opener, Watch

IOTLB_LINES = 1024
ROUNDS = {1: "IOTLB hits", 512: "4 KiB WRITEs round 512 pages", 4096: "IOTLB misses",
          16384: "4 KiB WRITEs round 16,384 pages"}  # fmt: skip
"""By the pages of each side; the default profile's IOTLB has 1,024 lines."""


def cases() -> Iterator[Case]:
    """Hits, misses and what lies between."""
    for pages, name in ROUNDS.items():
        unit, other = ("misses/s", "hits/s") if pages > IOTLB_LINES else ("hits/s", "misses/s")
        note = f"round {pages:,} page{'s' if pages > 1 else ''} of each side; both NICs translate"
        yield Case(name, "iotlb", unit, _lookups(Kind(size=4096, places=pages)), (limits.bare(4096),),
                   (other, "packets/s", "GB/s"), note)  # fmt: skip


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
