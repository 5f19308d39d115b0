"""The first packets of a trace: its processes, the tracks that every trace has, those of NICs and cables."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.observe.perfetto.messages import counter, process, track
from nicemu.observe.perfetto.words import (
    BLOCKS,
    CABLE_IN,
    CABLE_OUT,
    DRIVER,
    FIRST_NIC,
    GAUGES,
    MM,
    MM_EVENTS,
    NIC_TRACKS,
    POSTS,
    PROGRAM,
    WAITS,
)

GAUGES_AT = 1 + len(BLOCKS)


def first_track(nic: int) -> int:
    """uuid of the track of NIC ``nic`` (from 0), which is that of a process."""
    return FIRST_NIC + nic * NIC_TRACKS


def gauge_track(nic: int, gauge: int) -> int:
    """uuid of a NIC's counter."""
    return first_track(nic) + GAUGES_AT + gauge


def opening(names: list[str]) -> Iterator[bytes]:
    """All of them; ``names``: of the devices."""
    yield process(PROGRAM, "program", 1)
    yield track(POSTS, PROGRAM, "posts", 1)
    yield track(WAITS, PROGRAM, "waits", 2)
    yield process(DRIVER, "driver", 2)
    yield process(MM, "mm", 3)
    yield track(MM_EVENTS, MM, "page tables, frames", 1)
    for k, name in enumerate(names):
        first = first_track(k)
        yield process(first, f"nic{k} ({name})", 4 + k)
        for block, text in BLOCKS.items():
            yield track(first + block, first, text, int(block))
        for gauge, text in GAUGES.items():
            yield counter(gauge_track(k, gauge), first, text, 30 + gauge)
        yield track(first + CABLE_OUT, first, "cable out", 40)
        yield track(first + CABLE_IN, first, "cable in", 41)
