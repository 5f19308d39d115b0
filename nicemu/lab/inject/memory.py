"""Faults of the mm: allocations, swap, bad memory, the OOM killer."""

from __future__ import annotations

import errno
from typing import Any

from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.driver.mr import Mr
from nicemu.lab.inject.entry import Injected, around
from nicemu.mm.memory_failure import memory_failure, soft_offline_page
from nicemu.mm.oom_kill import out_of_memory
from nicemu.mm.page import Fault
from nicemu.mm.page_table import PFN_SHIFT, PRESENT
from nicemu.timeline import Sleep, Steps


def fail_allocation(entry: Injected) -> None:
    """``alloc_pages`` has none, without a look."""
    host, inside = entry.lab.host, entry.what.operation

    def failing(alloc_pages: Any) -> Any:
        def allocate(*arguments: Any, **options: Any) -> Steps[Any]:
            if (inside is None or inside in host.thread.context) and entry.strikes():
                raise Fault(errno.ENOMEM, 0, f"out of memory: injected fault {entry.number}")
            return (yield from alloc_pages(*arguments, **options))

        return allocate

    around(host, "alloc_pages", failing)
    around(host, "get_page_from_freelist", lambda _: lambda *arguments: 0)  # all goes the long way


def fail_swap_read(entry: Injected) -> None:
    """The device answers, with an error."""

    def failing(read: Any) -> Any:
        def reading(slots: list[int], frames: list[int]) -> Steps[None]:
            yield from read(slots, frames)
            if entry.strikes():
                raise Fault.bus_error(0, f"error in reading from swap: injected fault {entry.number}")

        return reading

    around(entry.lab.host.swap, "read", failing)


def slow_swap(entry: Injected) -> None:
    """The device answers later."""

    def waiting(read: Any) -> Any:
        def reading(slots: list[int], frames: list[int]) -> Steps[None]:
            if entry.strikes():
                yield Sleep(entry.what.extra_ns)
            yield from read(slots, frames)

        return reading

    around(entry.lab.host.swap, "read", waiting)


def _page_of(region: Mr | None, page: int) -> int:
    """The frame under a page of a region, 0: none."""
    if region is None:
        return 0
    entry = region.pd.context.mm.page_table.get((region.address >> PAGE_SHIFT) + page)
    return int(entry) >> PFN_SHIFT if entry & PRESENT else 0


def fail_memory(entry: Injected) -> None:
    """A machine check, or the warning of one."""
    what, lab = entry.what, entry.lab

    def steps() -> Steps[None]:
        frame = _page_of(next((mr for mr in lab.driver.mrs if mr.number == what.mr), None), what.page)
        if not frame:
            entry.refused = f"at {lab.scheduler.clock()} ns there was no memory under {what.detail}"
            return
        try:
            yield from (soft_offline_page if what.soft else memory_failure)(lab.host, frame)
        except OSError as error:
            entry.refused = f"the memory cannot be taken out of use: {error.strerror}"
            return
        entry.fire()

    entry.at_its_time(steps)


def kill(entry: Injected) -> None:
    """``echo f > /proc/sysrq-trigger``."""
    host = entry.lab.host

    def steps() -> Steps[None]:
        before = host.counters["oom_kill"]
        entry.lab.scheduler.spawn(out_of_memory(host, 1, None), "sysrq-f", daemon=True)  # waits for the victim's end
        yield Sleep(1)
        if host.counters["oom_kill"] > before:
            entry.fire()
        else:
            entry.refused = "no process may be killed (host.oom_kills_program)"

    entry.at_its_time(steps)
