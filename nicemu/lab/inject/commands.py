"""Commands that the device refuses, or never answers: at the doorbell that hands their slot over."""

from __future__ import annotations

from collections.abc import Callable

from nicemu.abi.command import Command, Status
from nicemu.abi.rings import Doorbell
from nicemu.driver.command import TIMEOUT_NS
from nicemu.lab.inject.doorbells import Write, split
from nicemu.lab.inject.entry import Injected, around
from nicemu.timeline import Sleep, Steps


def at_command(entry: Injected, happen: Callable[[int], bool]) -> None:
    """Ask ``happen(slot)`` for each command chosen: is the doorbell written nevertheless?"""
    commands, wanted = entry.device.commands, entry.what.command

    def watching(write: Write) -> Write:
        def write_doorbell(offset: int, value: int) -> None:
            bank, slot = split(offset)
            is_it = bank == Doorbell.COMMAND and (wanted is None or commands.opcode(slot) == Command[wanted])
            if not is_it or not entry.strikes() or happen(slot):
                write(offset, value)

        return write_doorbell

    around(entry.device.device, "write_doorbell", watching)


def refuse(entry: Injected) -> None:
    """The device answers with a status and does nothing."""
    status = Status[entry.what.status]

    def happen(slot: int) -> bool:
        entry.device.commands.refuse(slot, status)
        return True

    at_command(entry, happen)


def never_answer(entry: Injected) -> None:
    """The device does not take the command; the driver gives up after its timeout."""
    commands = entry.device.commands

    def give_up(slot: int) -> Steps[None]:
        yield Sleep(TIMEOUT_NS)
        commands.time_out(slot)

    def happen(slot: int) -> bool:
        commands.expect_timeout(slot)
        entry.lab.scheduler.spawn(give_up(slot), f"{entry.device.name}/command-timeout", daemon=True)
        return False

    at_command(entry, happen)
