"""Doorbells that do not arrive."""

from __future__ import annotations

from collections.abc import Callable

from nicemu.abi.rings import Doorbell
from nicemu.lab.inject.entry import Injected, around

Write = Callable[[int, int], None]


def split(offset: int) -> tuple[int, int]:
    """(bank, number) of a doorbell register's offset."""
    return offset >> 24, (offset & 0xFFFFFF) >> 3


def lose(entry: Injected) -> None:
    """The device never sees the write."""
    bank = Doorbell[entry.what.kind.upper()]

    def losing(write: Write) -> Write:
        def write_doorbell(offset: int, value: int) -> None:
            if split(offset)[0] != bank or not entry.strikes():
                write(offset, value)

        return write_doorbell

    around(entry.device.device, "write_doorbell", losing)
