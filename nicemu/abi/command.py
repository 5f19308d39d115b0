"""The command queue's format: 128-byte slots in host memory, one mailbox each.

The driver fills a slot, rings ``Doorbell.COMMAND`` with its number, and the device answers with an EQE of type CMD
after writing the status word. ``params`` are signed 64-bit; their meaning per opcode stands in :class:`Command`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

COMMAND = struct.Struct("<II14qQ")
"""opcode, status, params[14], mailbox address."""
COMMAND_BYTES = 128
COMMAND_STATUS, COMMAND_PARAMS, COMMAND_MAILBOX = 4, 8, 120
COMMAND_SLOTS = 64


class Status(IntEnum):
    """Command status."""

    OK, BAD_OPCODE, BAD_PARAM, BAD_RESOURCE, NO_MEMORY, BAD_STATE = range(6)


class Command(IntEnum):
    """Opcodes and their parameters (by index)."""

    NOP = 0
    CREATE_MKEY = 1
    """index, key, pd, base va, length, access, flags (``MkeyFlag``), number (log name)."""
    DESTROY_MKEY = 2
    """index. Flushes its translations and drains like ZAP_MTT."""
    CREATE_CQ = 3
    """cqn, ring address, slots, doorbell record address, eqn."""
    DESTROY_CQ = 4
    """cqn."""
    CREATE_QP = 5
    """qpn, type, pd, send cqn, recv cqn, send ring, send slots, send stride, recv ring, recv slots, recv stride,
    doorbell record, flags (1: all sends signaled), first row of its SQ_ENTRY slice."""
    MODIFY_QP = 6
    """qpn, attribute mask, mailbox: ``QP_CONTEXT`` of int64 (order of ``QpField``)."""
    QUERY_QP = 7
    """qpn, mailbox receives ``QP_CONTEXT``."""
    DESTROY_QP = 8
    """qpn."""
    UPDATE_MTT = 9
    """mkey index, first page, pages; mailbox: MTT entries, int64 each."""
    ZAP_MTT = 10
    """mkey index, first page, pages. Completes when no DMA uses the old translations any more."""
    PAGE_FAULT_RESUME = 11
    """token, error (0 or 1)."""


class MkeyFlag(IntEnum):
    """Flags of CREATE_MKEY."""

    ODP = 1


class QpField(IntEnum):
    """Words of a QP context in a MODIFY_QP or QUERY_QP mailbox."""

    (
        STATE,
        CUR_STATE,
        ACCESS,
        PKEY_INDEX,
        PORT,
        QKEY,
        PATH_MTU,
        TIMEOUT,
        RETRY_CNT,
        RNR_RETRY,
        RQ_PSN,
        MAX_RD_ATOMIC,
        MIN_RNR_TIMER,
        SQ_PSN,
        MAX_DEST_RD_ATOMIC,
        DEST_QPN,
        DEST_NIC,
        SQ_DRAINING,
    ) = range(18)


QP_CONTEXT = struct.Struct(f"<{len(QpField)}q")

MTT_READ, MTT_WRITE = 1, 2
MTT_FRAME_SHIFT, MTT_FRAME_BITS, MTT_STAMP_SHIFT = 2, 30, 32


def mtt_entry(frame: int, write: bool, stamp: int) -> int:
    """An MTT entry: bit 0 read, bit 1 write, bits 2..31 bus frame, bits 32..62 the mm stamp it was made at."""
    return MTT_READ | (MTT_WRITE if write else 0) | frame << MTT_FRAME_SHIFT | stamp << MTT_STAMP_SHIFT
