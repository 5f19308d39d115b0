"""Cables as Python sees them: how a NIC's two links are set up, and which of them may take the fast path."""

from __future__ import annotations

from nicemu.tables.world import World

JUMBO = 9000
"""Default MTU of a link: bytes of an IP packet."""


def rows_of(nic_number: int) -> tuple[int, int]:
    """Rows of the link that a NIC (from 1) sends into and of the one that leads to it."""
    return 2 * nic_number - 1, 2 * nic_number


def name_of(row: int) -> str:
    """How reports call a link: ``nic0 out``, ``nic0 in``."""
    return f"nic{(row - 1) // 2} {'out' if row & 1 else 'in'}"


def ps_per_byte(rate_gbps: int) -> int:
    """Picoseconds that a byte takes."""
    return round(8000 / rate_gbps)


def plug_in(world: World, nic_number: int, rate_ps: int, delay_ns: int, mtu: int = JUMBO) -> None:
    """A NIC's cable, as fast as its port: the fabric of a lab that says nothing about it."""
    for number in rows_of(nic_number):
        row = world.link[number]
        row.number, row.nic, row.up, row.mtu = number, nic_number, 1, mtu
        row.ps_per_byte, row.delay_ns = rate_ps, delay_ns
        refresh(world, number)


def refresh(world: World, number: int) -> None:
    """Say anew whether packets may take the fast path of a link, and whether a capture sees it."""
    row = world.link[number]
    paced = number & 1 == 0 or row.ps_per_byte <= world.nic[int(row.nic)].ps_per_byte
    switched = bool(world.fabric[0].switched)
    row.plain = int(bool(row.up) and not row.first_tap and not switched and bool(paced))
    row.captured = int(bool(number & 1) or switched or bool(row.first_tap))
