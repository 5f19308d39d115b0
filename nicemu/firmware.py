"""What a firmware image may use: row accessors, a state area of its own, the answers of hooks (docs/firmware.md).

An image reads rows (``qp(world, row).min_rnr_timer``), writes only its state, and answers with an integer::

    from nicemu.firmware import qp_state

    mine = qp_state("last_page", "stride")  # int64 fields, at most 32; zero at first, and again when the QP is reset


    def fault_pages(world, row, arg):
        state = mine(world, row)
        ...

What is random comes from the run's seed: ``below(draw(fabric(world, 0).seed, stream, row, count), limit)`` is a number
in 0..limit-1 and a function of these and nothing else; ``stream`` keeps the draws of different purposes apart.

State belongs to the image that runs on the NIC; two images of a lab never see each other's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nicemu._jit import jit, row_accessor
from nicemu.fabric.draw import below, draw
from nicemu.nic.hooks import (
    BY_GAP,
    BY_NAK,
    BY_RNR,
    BY_TIMEOUT,
    DROP,
    FAULT,
    FULL,
    GO_BACK,
    GO_ON,
    KEEP,
    KEEP_RATE,
    LAZY,
    NAK,
    ONLY,
    REDIRECT,
    SELECTIVE,
    STALL,
    TO_ERR,
)
from nicemu.nic.qp_type import RAW_PACKET, RC, UC, UD, XRC_INI, XRC_TGT
from nicemu.tables.records import CONTROL, STATE_WORDS, Slot
from nicemu.tables.rows import control, cq, eq, fabric, fault, iotlb, mkey, msix, nic, qp

__all__ = [
    "BY_GAP", "BY_NAK", "BY_RNR", "BY_TIMEOUT", "DROP", "FAULT", "FULL", "GO_BACK", "GO_ON", "KEEP", "KEEP_RATE",
    "LAZY", "NAK", "ONLY", "RAW_PACKET", "RC", "REDIRECT", "SELECTIVE", "STALL", "TO_ERR", "UC", "UD", "XRC_INI",
    "XRC_TGT", "below", "control", "cq", "draw", "eq", "fabric", "fault", "iotlb", "jit", "mkey", "msix", "nic",
    "nic_state", "qp", "qp_state",
]  # fmt: skip

_TRAP = CONTROL.fields["trap"][1]  # type: ignore[index]


def nic_state(*names: str) -> Callable[..., Any]:
    """An accessor ``state(world, row)`` of the image's record of a NIC, with int64 fields of these names.

    :raises ValueError: no name, more than 32, or one twice.
    """
    return _accessor(Slot.NIC_STATE, names)


def qp_state(*names: str) -> Callable[..., Any]:
    """The same of a QP."""
    return _accessor(Slot.QP_STATE, names)


def _accessor(slot: Slot, names: tuple[str, ...]) -> Callable[..., Any]:
    if not 0 < len(names) <= STATE_WORDS or len(set(names)) < len(names):
        listed = ", ".join(map(str, names))
        raise ValueError(f"state: expected 1 to {STATE_WORDS} names, each once, given {len(names)}: {listed}")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"state: expected names of fields, given {name!r}")
    offsets = [8 * i for i in range(len(names))]
    layout = {"names": list(names), "formats": [np.int64] * len(names), "offsets": offsets, "itemsize": 8 * STATE_WORDS}
    return row_accessor(np.dtype(layout, align=True), int(slot), _TRAP)  # type: ignore[call-overload]
