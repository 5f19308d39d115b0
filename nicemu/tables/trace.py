"""The event log: one row per thing that happened, in compiled code and on the host, in one order.

Rows carry numbers only, and only canonical ones: mkey numbers, page indices, frame ids, never a host address.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import jit
from nicemu.tables.rows import control, trace_row

TRACE_ROWS = 1 << 17
MAX_TRACE = TRACE_ROWS // 2
"""The engine stops to drain here; what is left holds the longest event, the flush of two full queues."""


class Ev(IntEnum):
    """Kinds of device events; the comment names a, b, c, d."""

    SEND = 2  # opcode, psn, qpn, payload bytes
    RECEIVE = 3  # opcode, psn, qpn, payload bytes
    DROP = 4  # opcode, psn, qpn, reason
    DMA = 5  # mkey, page, bytes, write
    CQE = 6  # cqn, qpn, status, opcode
    EQE = 7  # eqn, type, subtype, data
    INTERRUPT = 8  # vector
    COMMAND = 9  # opcode, slot
    COMMAND_DONE = 10  # opcode, slot, status
    FAULT = 11  # type, qpn, mkey, page
    RESUME = 12  # type, qpn, error
    MTT_UPDATE = 13  # mkey, first page, pages
    MTT_ZAP = 14  # mkey, first page, pages, ns to drain
    RNR_NAK = 15  # qpn, psn, timer code
    NAK = 16  # qpn, psn, syndrome
    RETRANSMIT = 17  # qpn, psn
    TIMEOUT = 18  # qpn, psn
    QP_STATE = 19  # qpn, state
    VIOLATION = 20  # kind, mkey, page, frame
    IOTLB_MISS = 21  # mkey, page
    BACKUP_RING = 22  # qpn, psn, payload bytes, packets in the ring
    INJECT = 40  # impairment, number of the fault, operation, psn
    LINK_DROP = 41  # operation, psn, qpn, LinkDrop
    ECN_MARK = 42  # operation, psn, qpn, bytes queued
    LINK_PAUSE = 43  # 1 paused, 0 going on
    CNP = 44  # 1 sent, 0 received; own qpn, peer's qpn


@jit
def trace(world, kind, nic, a, b, c, d):
    """Append a row if tracing is on. The engine stops in time to drain the table."""
    control_row = control(world, 0)
    if control_row.trace == 0:
        return
    i = control_row.trace_count
    if i >= TRACE_ROWS:
        return
    control_row.trace_count = i + 1
    row = trace_row(world, i)
    row.time = control_row.now
    row.sequence = control_row.ran
    row.kind = kind
    row.nic = nic
    row.a = a
    row.b = b
    row.c = c
    row.d = d
