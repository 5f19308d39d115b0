"""What a device does wrong, by the names in a profile's ``defects``; each is a bit of ``nic.defects``."""

from __future__ import annotations

from enum import IntFlag

from nicemu._jit import jit
from nicemu.tables.rows import nic


class Defect(IntFlag):
    """Seen in soft-RoCE of Linux 7.3."""

    PAGE_OFFSET = 1
    """On-demand memory is written and read from page starts on (rxe_odp.c)."""
    WINDOW_BOUNDS = 2
    """A memory window opens all of its region (rxe_resp.c check_rkey)."""
    WINDOW_OWNER = 4
    """Another QP than the one that bound a window invalidates it (rxe_mw.c rxe_invalidate_mw)."""
    CONTROLLED_QKEY = 8
    """A Q_Key with its top bit set goes out as it is (rxe_req.c)."""
    LATE_ELEMENTS = 16
    """Elements of a request or receive are looked at when their bytes are due, and not before the first (rxe_mr.c
    copy_data)."""


PAGE_OFFSET, WINDOW_BOUNDS, WINDOW_OWNER, CONTROLLED_QKEY, LATE_ELEMENTS = map(int, Defect)


@jit
def has(world, nic_number, defect):
    """The device has this defect."""
    return nic(world, nic_number).defects & defect != 0
