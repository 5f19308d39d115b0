"""Wrong lines in the IOTLB, written where the host acts: before a doorbell, after an invalidation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nicemu.abi.command import MTT_FRAME_BITS, MTT_FRAME_SHIFT, Command, mtt_entry
from nicemu.abi.rings import Doorbell
from nicemu.driver.mr import Mr
from nicemu.driver.umem import Umem
from nicemu.lab.evict import explicit
from nicemu.lab.inject.doorbells import Write, split
from nicemu.lab.inject.entry import Injected, around
from nicemu.timeline import Completion, Steps

CHECK_TRANSLATIONS = 2
"""Level of the sanitizer at which it compares each DMA with the table of translations."""


def frame_of(region: Mr, page: int) -> int:
    """The frame that the device has for a page of the region, 0: none."""
    memory = region.umem
    if isinstance(memory, Umem):
        usable = memory.page_shift == 12 and page < len(memory.frames)
        return int(memory.frames[page]) >> 1 if usable else 0
    return next((device_frame(found.region, page) for found in explicit(memory)), 0)


def device_frame(region: Mr, page: int) -> int:
    """The frame in the device's own table, 0: none."""
    device = region.device.device
    row = device.world.mkey[int(device.row.mkey_base) + region.index]
    entry = int(row.root)
    for level in reversed(range(int(row.levels))):
        entry = int(device.world.nodes[entry, page >> 9 * level & 511])
    return entry >> MTT_FRAME_SHIFT & (1 << MTT_FRAME_BITS) - 1


def pages_of(region: Mr) -> Iterator[int]:
    """All that :func:`frame_of` knows of a region, in order."""
    memory = region.umem
    if isinstance(memory, Umem):
        yield from (int(frame) >> 1 for frame in memory.frames if memory.page_shift == 12)
    for found in explicit(memory)[:1]:
        numbers = found.pages.numbers(0, (found.end - found.start) >> 12)
        yield from (device_frame(found.region, int(number)) for number in numbers)


def regions(entry: Injected) -> Iterator[Mr]:
    """Those that the entry is about."""
    device = entry.device
    return (mr for mr in entry.lab.driver.mrs if mr.device is device and entry.what.mr in (None, mr.number))


def poison(entry: Injected) -> None:
    """Plant either kind."""
    (_foreign if entry.what.translation == "foreign" else _stale)(entry)


def _foreign(entry: Injected) -> None:
    """Before a doorbell of a send queue: the page's line leads to another page that the device has."""
    control = entry.lab.world.control[0]
    if control.sanitizer:
        control.sanitizer = CHECK_TRANSLATIONS

    def look() -> None:
        for region in regions(entry):
            own = frame_of(region, entry.what.page)
            others = (frame for mr in (region, *entry.lab.driver.mrs) if mr.device is region.device
                      for frame in pages_of(mr) if frame not in (0, own))  # fmt: skip
            other = next(others, 0) if own else 0
            if other:
                if entry.strikes():
                    _write_line(region, entry.what.page, other, entry.lab.driver.stamp())
                return

    def poisoning(write: Write) -> Write:
        def write_doorbell(offset: int, value: int) -> None:
            if split(offset)[0] == Doorbell.SEND:
                look()
            write(offset, value)

        return write_doorbell

    around(entry.device.device, "write_doorbell", poisoning)


def _stale(entry: Injected) -> None:
    """After an invalidation of the page: its line is as before."""
    page, driver = entry.what.page, entry.lab.driver

    def put_back(region: Mr, frame: int, stamp: int, completion: Completion) -> Steps[None]:
        yield completion
        _write_line(region, page, frame, stamp)

    def keeping(post: Any) -> Any:
        def posting(opcode: Command, params: tuple[int, ...], *options: Any) -> Steps[Completion]:
            hit = opcode == Command.ZAP_MTT and params[1] <= page < params[1] + params[2]
            found = next((mr for mr in regions(entry) if mr.index == params[0]), None) if hit else None
            frame, stamp = frame_of(found, page) if found else 0, driver.stamp()
            completion = yield from post(opcode, params, *options)
            if found and frame and entry.strikes():
                entry.lab.scheduler.spawn(put_back(found, frame, stamp, completion), "inject-stale", daemon=True)
            return completion  # type: ignore[no-any-return]

        return posting

    around(entry.device.commands, "post", keeping)


def _write_line(region: Mr, page: int, frame: int, stamp: int) -> None:
    region.device.device.write_iotlb(region.index, page, mtt_entry(frame, region.writable, stamp))
