"""Page faults of a device that are handled late, in vain, or never: the driver's page-fault work."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from nicemu.abi.rings import EqeType
from nicemu.driver.errors import DriverError
from nicemu.driver.page_fault_work import PageFault
from nicemu.lab.inject.entry import Injected, around
from nicemu.timeline import Sleep, Steps

FaultIn = Callable[[PageFault, dict[str, Any]], Steps[None]]


def slow(entry: Injected) -> None:
    """The work sleeps before it looks at the page."""

    def waiting(fault_in: FaultIn) -> FaultIn:
        def late(fault: PageFault, stages: dict[str, Any]) -> Steps[None]:
            if entry.strikes():
                yield Sleep(entry.what.extra_ns)
            yield from fault_in(fault, stages)

        return late

    around(entry.device.faults, "fault_in", waiting)


def fail(entry: Injected) -> None:
    """The page cannot be had, whatever it is."""

    def failing(fault_in: FaultIn) -> FaultIn:
        def never(fault: PageFault, stages: dict[str, Any]) -> Steps[None]:
            if entry.strikes():
                raise DriverError(errno.EFAULT, f"page fault: injected fault {entry.number}")
            yield from fault_in(fault, stages)

        return never

    around(entry.device.faults, "fault_in", failing)


def lose(entry: Injected) -> None:
    """The event queue's entry is read, and nobody does anything about it."""
    handlers = entry.device.handlers
    handle = handlers[EqeType.PAGE_FAULT]

    def losing(*event: Any) -> None:
        if not entry.strikes():
            handle(*event)

    handlers[EqeType.PAGE_FAULT] = losing
