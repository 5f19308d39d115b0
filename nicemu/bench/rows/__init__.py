"""Cases by topic, a file each: ``cases()`` of every module here, in the order of ``TOPICS``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from nicemu.bench.measure import Case

TOPICS = ("verbs", "fabric", "shim", "odp", "iotlb", "memory", "startup")
PEERS = ("peers",)


def cases(peers: bool = False) -> Iterator[Case]:
    """Every case there is; ``peers``: other simulators as well."""
    for topic in (*TOPICS, *PEERS) if peers else TOPICS:
        yield from importlib.import_module(f"{__name__}.{topic}").cases()
