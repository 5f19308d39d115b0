"""Ring formats: send and receive WQE, scatter/gather element, CQE, EQE, doorbells.

One ``struct`` format per record for the Python side, one offset constant per field for compiled code; a test holds
the two together. All little-endian.

A send WQE is a 64-byte header followed by SGEs or by inline data; a receive WQE a 16-byte header followed by SGEs.
Rings have a power-of-two number of slots; producer and consumer counters are 64-bit, count from 0 and never wrap.
A record's owner word is valid when it equals ``owner(counter, slots)``; rings start zeroed.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

# Send WQE header of operations with fields of their own:
#   SEND_WITH_INV, LOCAL_INV   imm: the R_Key to invalidate
#   UD                         rkey: number of the address handle
#   XRC                        remote_qpn: SRQ number
#   TSO                        compare_add: bytes of headers, which stand behind the SGEs; swap: MSS
#   FLUSH                      compare_add: placement type | selectivity level << 8; swap: bytes
#   BIND_MW                    remote_addr, swap: address and length; rkey: the new key; imm: access flags;
#                              remote_qpn: lkey of the region; compare_add: the window's present key (of a type 2
#                              window only the index counts)
# Send WQE header: wr_id, opcode, flags, num_sge, imm_data (as the program gave it) or rkey to invalidate,
# remote_addr, rkey (UD: address handle), inline_length, compare_add, swap, remote_qpn, remote_qkey
SEND_WQE = struct.Struct("<QIIIIQIIQQII")
(
    SEND_WR_ID,
    SEND_OPCODE,
    SEND_FLAGS,
    SEND_NUM_SGE,
    SEND_IMM,
    SEND_REMOTE_ADDR,
    SEND_RKEY,
    SEND_INLINE_LENGTH,
    SEND_COMPARE_ADD,
    SEND_SWAP,
    SEND_REMOTE_QPN,
    SEND_REMOTE_QKEY,
) = (0, 8, 12, 16, 20, 24, 32, 36, 40, 48, 56, 60)
SEND_HEADER_BYTES = 64

# Receive WQE header: wr_id, num_sge, reserved
RECV_WQE = struct.Struct("<QII")
RECV_WR_ID, RECV_NUM_SGE = 0, 8
RECV_HEADER_BYTES = 16

# SGE: addr, length, lkey
SGE = struct.Struct("<QII")
SGE_ADDR, SGE_LENGTH, SGE_LKEY = 0, 8, 12
SGE_BYTES = 16

# CQE: wr_id, qp_num, src_qp, byte_len, imm_data, status, opcode, wc_flags, vendor_err, timestamp (ns), wqe_counter,
# pkey_index, reserved, owner
CQE = struct.Struct("<QIIIIIIIIQIIII")
(
    CQE_WR_ID,
    CQE_QP_NUM,
    CQE_SRC_QP,
    CQE_BYTE_LEN,
    CQE_IMM,
    CQE_STATUS,
    CQE_OPCODE,
    CQE_WC_FLAGS,
    CQE_VENDOR_ERR,
    CQE_TIMESTAMP,
    CQE_WQE_COUNTER,
    CQE_PKEY_INDEX,
    CQE_OWNER,
) = (0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 52, 60)
CQE_BYTES = 64
CQE_APP_CTX, CQE_TAG_LOW, CQE_TAG_HIGH = CQE_SRC_QP, CQE_PKEY_INDEX, 56
"""What stands in those places in completions of tag matching: the header's own 32 bits and its tag."""

VENDOR_SYNDROME = 0x80
"""``vendor_err`` of a failed CQE is this plus its ``WcStatus``: numbers of our own, no vendor's. 0: it did not fail."""
WALLCLOCK_EPOCH_NS = 1_349_049_600_000_000_000
"""Wall-clock time at virtual time 0: 2012-10-01 00:00 UTC in ns since 1970. Chosen: the same in every run."""

# EQE: type, subtype, six data words (meaning below), low 32 bits of when it happened (ns), owner
EQE = struct.Struct("<IIqqqqqqII")
EQE_TYPE, EQE_SUBTYPE, EQE_DATA, EQE_TIME, EQE_OWNER = 0, 4, 8, 56, 60
EQE_BYTES = 64

DOORBELL_RECORD_BYTES = 16
"""A QP's doorbell record: send producer counter, receive producer counter. A CQ's and EQ's: consumer counter, 0."""
DB_SEND, DB_RECV, DB_CONSUMER = 0, 8, 0
DB_SRQ_PRODUCER, DB_SRQ_CONSUMER = 0, 8
"""An SRQ's record: producer counter of the library, and how many WQEs the device has taken (a taken slot is free)."""


class EqeType(IntEnum):
    """Event types and their data words (mlx5 numbers them so: `0x00, 0x0a, 0x0c`; ASYNC stands for its many)."""

    COMP = 0x00
    """data 0: cqn."""
    ASYNC = 0x01
    """subtype: ``AsyncEvent``; data 0: number of the object (qpn, cqn or port)."""
    CMD = 0x0A
    """data 0: command slot; data 1: status."""
    PAGE_FAULT = 0x0C
    """subtype: ``FaultSubtype``; data: qpn | type << 32, token, mkey or rkey, va, bytes_committed, what is left
    of the operation from va on (RDMA) or WQE counter (WQE) | pages the firmware asks for << 32."""


class FaultSubtype(IntEnum):
    """Page-fault EQE subtypes (mlx5)."""

    WQE, RDMA = 0, 1


class FaultType(IntEnum):
    """The four faults a QP can have open at once; bit 0 says requestor (mlx5 ``pftype``)."""

    RESPONDER_RDMA, REQUESTER_SEND, RESPONDER_RECV, REQUESTER_READ = 0, 1, 2, 3


class Doorbell(IntEnum):
    """Doorbell register banks; the register's offset is ``bank << 24 | number << 3``."""

    SEND = 0
    """number: qpn; value: WQEs posted so far, for logs (the device reads it in the doorbell record)."""
    CQ_ARM = 1
    """number: cqn; value: 1 next completion, 2 next solicited."""
    EQ_ARM = 2
    """number: eqn; value ignored."""
    COMMAND = 3
    """number: command slot."""
    RECV = 4
    """number: qpn; value as for SEND. Needed only so that receives posted in ERR are flushed."""
    TAG_OPS = 5
    """number: srqn of a TM-SRQ; value ignored (the producer counter is in the record of its operations)."""


class Eqn(IntEnum):
    """Event queues of a NIC; MSI-X vector = eqn. Completion vector ``n`` is ``COMPLETION + n``."""

    COMMAND, ASYNC, PAGE_FAULT, COMPLETION = 1, 2, 3, 4


def doorbell_offset(bank: int, number: int) -> int:
    """Offset of a doorbell register in the doorbell BAR, in bytes."""
    return bank << 24 | number << 3


def owner(counter: int, slots: int) -> int:
    """The owner word that makes the record at ``counter`` valid: 1 on the first pass, then alternating."""
    return counter // slots + 1 & 1


def power_of_two(count: int) -> int:
    """The least power of two that is at least ``count`` and 1."""
    return 1 << max(int(count) - 1, 0).bit_length()


def send_ring_bytes(caps: Any, max_tso_header: int = 0) -> int:
    """Bytes of a QP's send ring for these ``Capabilities``."""
    return power_of_two(caps.max_send_wr) * send_stride(caps.max_send_sge, caps.max_inline_data, max_tso_header)


def recv_ring_bytes(caps: Any) -> int:
    """Bytes of a QP's own receive ring."""
    return power_of_two(caps.max_recv_wr) * recv_stride(caps.max_recv_sge)


def cq_slots(cqe: int) -> int:
    """Slots of a CQ's ring for at least ``cqe`` entries: one of them is kept free, as in mlx5."""
    return power_of_two(cqe + 1)


def srq_stride(max_sge: int) -> int:
    """Bytes of a slot of an SRQ: at least 64."""
    return max(recv_stride(max_sge), 64)


def send_stride(max_sge: int, max_inline: int, max_tso_header: int = 0) -> int:
    """Bytes of a send ring slot. The headers of a TSO request stand behind its SGEs."""
    return power_of_two(SEND_HEADER_BYTES + max(SGE_BYTES * max_sge + max_tso_header, max_inline))


def recv_stride(max_sge: int) -> int:
    """Bytes of a receive ring slot."""
    return power_of_two(RECV_HEADER_BYTES + SGE_BYTES * max_sge)
