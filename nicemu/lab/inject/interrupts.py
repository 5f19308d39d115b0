"""MSI-X messages that are lost or late: where the host takes them from the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nicemu.lab.inject.entry import Injected, around

Messages = Iterable[tuple[int, int]]
Deliver = Callable[[Messages], None]


def _divert(entry: Injected, takes: Callable[[], bool]) -> None:
    """Hand on what ``takes()`` leaves of the entry's vector."""
    mine = entry.device.index, entry.what.vector

    def diverting(deliver: Deliver) -> Deliver:
        return lambda messages: deliver([message for message in messages if message != mine or not takes()])

    around(entry.lab.timeline, "deliver", diverting)


def lose(entry: Injected) -> None:
    """The message never comes."""
    device, vector = entry.device.device, entry.what.vector
    _divert(entry, lambda: entry.strikes(lambda: device.lose_interrupt(vector)))


def delay(entry: Injected) -> None:
    """The message is on its way for longer, and no other of the vector meanwhile: the next one is it."""
    device, what = entry.device.device, entry.what
    coming = [False]

    def takes() -> bool:
        was_coming, coming[0] = coming[0], False
        coming[0] = not was_coming and entry.strikes(lambda: device.delay_interrupt(what.vector, what.delay_ns))
        return coming[0]

    _divert(entry, takes)
