"""What happens to a device as a whole: its port, its addresses, its vectors, its end."""

from __future__ import annotations

import ipaddress

from nicemu.abi.verbs import AsyncEvent
from nicemu.lab.inject.entry import Injected
from nicemu.timeline import Steps

EVENTS = {"port_down": AsyncEvent.PORT_ERR, "port_up": AsyncEvent.PORT_ACTIVE,
          "device_fatal": AsyncEvent.DEVICE_FATAL}  # fmt: skip


def port_event(entry: Injected) -> None:
    """The event, and the cable with it."""

    def steps() -> Steps[None]:
        yield from ()
        entry.fire()
        device = entry.device.device
        device.raise_event(EVENTS[entry.what.event])
        if entry.what.event != "device_fatal":
            entry.lab.fabric.set_link_up(device.index + 1, entry.what.event == "port_up")

    entry.at_its_time(steps)


def change_gid(entry: Injected) -> None:
    """An entry of the GID table changes."""

    def steps() -> Steps[None]:
        entry.fire()
        what, device = entry.what, entry.device.device
        old = device.gids[what.index]
        gid = ipaddress_bytes(what.gid) if what.gid else bytes((*old[:15], old[15] ^ 0x80)) if old else None
        yield from entry.device.change_gid(what.index, gid, device.gid_types[what.index] or 2)

    entry.at_its_time(steps)


def mask_vector(entry: Injected) -> None:
    """The vector's mask bit."""

    def steps() -> Steps[None]:
        yield from ()
        entry.fire()
        entry.device.device.mask_vector(entry.what.vector, entry.what.event == "mask_vector")

    entry.at_its_time(steps)


def ipaddress_bytes(text: str) -> bytes:
    """16 bytes of a GID given as an IPv6 or IPv4 address (the latter mapped, as RoCE v2 does)."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
