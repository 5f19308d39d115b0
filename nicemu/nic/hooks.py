"""The hook vector: decisions a vendor puts into firmware.

One ABI, the same as the engine's units: ``int64 f(int64 world, int64 row, int64 arg)``, ``row`` being the index of the
object decided about. Images are Python files (``firmware/``); see :mod:`nicemu.nic.firmware`.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import call, jit
from nicemu.tables.rows import hook, nic


class Hook(IntEnum):
    """Hook slots: object, argument, answer."""

    RESPONDER_FAULT = 0
    """QP row, its min_rnr_timer -> RNR timer code 0..31 to NAK with, or -1 to drop silently."""
    FAULT_PAGES = 1
    """QP row, fault row -> pages to ask the driver for, 0: the whole operation."""
    ACK = 2
    """QP row, PSN of a packet without AckReq -> 1 to acknowledge it now."""
    ACK_TIMEOUT = 3
    """QP row, local ACK timeout in ns -> ns to wait."""
    RNR_WAIT = 4
    """QP row, RNR timer in ns -> ns to wait."""
    IOTLB_VICTIM = 5
    """NIC row, first IOTLB row of the set -> way to evict, or -1 for least recently used."""
    UNRELIABLE_FAULT = 6
    """QP row, payload bytes of a UD, UC or raw packet that hit a missing page -> 1 to keep it in the backup ring, 0 to
    drop it."""


# the same numbers as plain integers, for kernels
RESPONDER_FAULT, FAULT_PAGES, ACK, ACK_TIMEOUT, RNR_WAIT, IOTLB_VICTIM, UNRELIABLE_FAULT = range(7)


@jit
def ask(world, nic_number, slot, row, arg):
    """The NIC's firmware decides."""
    return call(hook(world, nic(world, nic_number).hook_base + slot).address, world, row, arg)
