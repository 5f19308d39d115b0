"""The event log: one row per thing that happened, in compiled code and on the host, in one order.

Rows carry numbers only, and only canonical ones: mkey numbers, page indices, frame ids, never a host address.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import cold, jit
from nicemu.tables.rows import control, trace_row

TRACE_ROWS = 1 << 17
MAX_TRACE = TRACE_ROWS // 2
"""The engine stops to drain here; what is left holds the longest event, the flush of two full queues."""


WORDS_AT, TRACE_WORDS = 4, 4
"""Words of a row before its values; values in a row."""
CONTINUED = 1
"""Kind of a row with more values of the event before it, which is one of the host (``observe.perfetto``)."""


class Ev(IntEnum):
    """Kinds of device events; the comment names a, b, c, d."""

    SEND = 2  # opcode, psn, qpn of the peer, payload bytes and own qpn
    RECEIVE = 3  # opcode, psn, own qpn, payload bytes and qpn of the peer
    DROP = 4  # opcode, psn, qpn, reason
    DMA = 5  # mkey, page, bytes, write
    CQE = 6  # cqn, qpn, status, opcode and index of the WQE
    EQE = 7  # eqn, type, subtype, data
    INTERRUPT = 8  # vector, 1 if it is lost, ns since the device sent it
    COMMAND = 9  # opcode, slot
    COMMAND_DONE = 10  # opcode, slot, status
    FAULT = 11  # type, qpn and index of the WQE, mkey, page
    RESUME = 12  # type, qpn, error
    MTT_UPDATE = 13  # mkey, first page, pages
    MTT_ZAP = 14  # mkey, first page, pages, ns to drain
    RNR_NAK = 15  # qpn, psn, timer code
    NAK = 16  # qpn, psn, syndrome
    RETRANSMIT = 17  # qpn, psn
    TIMEOUT = 18  # qpn, psn
    QP_STATE = 19  # qpn, state
    VIOLATION = 20  # kind, mkey, page, frame
    IOTLB_MISS = 21  # mkey, page, ns it costs
    BACKUP_RING = 22  # qpn, psn, payload bytes, packets in the ring
    DOORBELL = 23  # qpn, bank, WQEs posted so far
    WQE = 24  # fetched: qpn, index, opcode and first PSN, bytes and last PSN
    WQE_DONE = 25  # retired or flushed: qpn, index, status, opcode and 1 if it asked for a CQE
    RECV_TAKEN = 26  # qpn, index, srqn, bytes it has room for (-1: it is bad)
    RNR_WAIT = 27  # qpn, psn, ns
    RNR_OVER = 28  # qpn
    SQ_HELD = 29  # qpn, index of the WQE that may not start or go on, Held
    LINK_OUT = 30  # first bit on the NIC's cable: opcode, psn, qpn, ns on the wire
    LINK_IN = 31  # the same on the switch's cable to the NIC
    QP_PATH = 32  # qpn, peer's NIC, peer's qpn, QP type
    RATE = 33  # qpn, kbit/s it may send at
    QP_CACHE_MISS = 34  # qpn, ns it costs
    INJECT = 40  # impairment, number of the fault, operation, psn
    LINK_DROP = 41  # operation, psn, qpn, LinkDrop
    ECN_MARK = 42  # operation, psn, qpn, bytes queued
    LINK_PAUSE = 43  # 1 paused, 0 going on
    CNP = 44  # 1 sent, 0 received; own qpn, peer's qpn


class Held(IntEnum):
    """Why the send queue may not go on."""

    READS = 1  # as many READs and atomics outstanding as may be
    WINDOW = 2  # as many packets on their way as may be
    CREDITS = 3  # the peer has no receive posted that we know of
    FENCE = 4  # READs and atomics before it are not done


@jit
def two(low, high):
    """Two values in one word of a row: ``low`` in its low 32 bits."""
    return high << 32 | low & 0xFFFFFFFF


@jit
def trace(world, kind, nic, a, b, c, d):
    """Append a row if tracing is on. The engine stops in time to drain the table."""
    if control(world, 0).trace:
        append(world, kind, nic, a, b, c, d)


@cold
def append(world, kind, nic, a, b, c, d):
    """One row."""
    control_row = control(world, 0)
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
