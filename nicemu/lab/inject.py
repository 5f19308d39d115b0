"""``inject:``: faults on purpose, at a time or at an interrupt, each with a record that it fired."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import AsyncEvent
from nicemu.timeline import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.lab.lab import Lab

DEVICE_EVENTS = {"port_down": AsyncEvent.PORT_ERR, "port_up": AsyncEvent.PORT_ACTIVE,
                 "device_fatal": AsyncEvent.DEVICE_FATAL}  # fmt: skip


@dataclass(slots=True)
class Injected:
    """One entry of ``inject:``. ``fired_at``: ns, None if it has not."""

    what: Any
    device: IbDevice
    fired_at: int | None = None

    @property
    def fired(self) -> bool:
        """It happened. An interrupt to lose: it was raised, and got lost."""
        if self.what.event == "lose_interrupt":
            at = int(self.device.device.row.eq_base) + self.what.vector
            return bool(self.device.device.world.msix[at].lost)
        return self.fired_at is not None

    def __str__(self) -> str:
        what = self.what
        name = f"{what.event} {self.device.name}"
        if what.vector is not None:
            name += f" vector {what.vector}"
        if what.event == "lose_interrupt":
            name += f" message {what.nth}"
        if not self.fired:
            return f"{name}: did not fire"
        return f"{name}: fired" + (f" at {self.fired_at} ns" if self.fired_at is not None else "")


def inject(lab: Lab) -> list[Injected]:
    """Plant everything that the configuration asks for."""
    return [plant(lab, what) for what in lab.config.inject]


def plant(lab: Lab, what: Any) -> Injected:
    """Plant one ``Injection``; ``at_ns`` counts from now."""
    entry = Injected(what, lab.driver.devices[what.nic])
    if what.event == "lose_interrupt":
        entry.device.device.lose_interrupt(what.vector, what.nth)
    else:
        lab.scheduler.spawn(_at_its_time(lab, entry), f"inject-{what.event}", daemon=True)
    return entry


def _at_its_time(lab: Lab, entry: Injected) -> Steps[None]:
    yield Sleep(entry.what.at_ns)
    entry.fired_at = lab.scheduler.clock()
    device = entry.device.device
    what = entry.what
    if what.event == "gid_change":
        old = device.gids[what.index]
        gid = ipaddress_bytes(what.gid) if what.gid else bytes((*old[:15], old[15] ^ 0x80)) if old else None
        yield from entry.device.change_gid(what.index, gid, device.gid_types[what.index] or 2)
    elif what.event in ("mask_vector", "unmask_vector"):
        device.mask_vector(what.vector, what.event == "mask_vector")
    else:
        device.raise_event(DEVICE_EVENTS[what.event])
        if what.event.startswith("port_"):
            lab.fabric.set_link_up(device.index + 1, what.event == "port_up")


def ipaddress_bytes(text: str) -> bytes:
    """16 bytes of a GID given as an IPv6 or IPv4 address (the latter mapped, as RoCE v2 does)."""
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
