"""Many NICs on one switch: what a packet costs as their number grows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nicemu.bench import labs, limits
from nicemu.bench.flow import CHAIN_MOST, MTUS, Flow, Kind
from nicemu.bench.measure import Batch, Case, Limit
from nicemu.workloads.bench import Bench, End

NICS = (2, 16, 256)
TWO = "2 NICs on a switch"
KIND = Kind(size=4096)
NOTE = "each NIC writes to the next one, 4 KiB messages, all at once; what 256 of them touch is beyond a core's caches"


def cases() -> Iterator[Case]:
    """A ring of flows through the switch."""
    for nics in NICS:
        against = [limits.bare(KIND.size)]
        if nics != NICS[0]:
            against.append(Limit(TWO, "packets/s", _ring(NICS[0])))
        also = ("messages/s", "GB/s", "events/s", "x real time")
        yield Case(f"{nics} NICs on a switch", "fabric", "packets/s", _ring(nics), tuple(against), also, NOTE)


def _ring(nics: int) -> Any:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened(nics=nics, fabric={"switch": {}}) as bench:
            made = Flow(bench, KIND, list(_pairs(bench, nics)), max(32, CHAIN_MOST // nics))
            yield made.batch
            made.check()

    return opener


def _pairs(bench: Bench, nics: int) -> Iterator[tuple[End, End]]:
    for nic in range(nics):
        depth = max(32, CHAIN_MOST // nics)
        yield bench.rc_pair(nic, (nic + 1) % nics, depth=depth, path_mtu=MTUS[KIND.mtu])
