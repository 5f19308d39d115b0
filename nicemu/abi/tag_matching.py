"""Tag matching: operations on a TM-SRQ's tag list, and the headers of messages (``ibv_post_srq_ops(3)``, rdma-core
``tm_types.h`` and its document on hardware tag matching).

An operation is a 64-byte header followed by SGEs. Its ring has a doorbell record of its own: producer counter of the
library, and how many the device has executed. The device writes the status of an operation into its slot before it
counts it.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from nicemu.abi.rings import SGE_BYTES

OP = struct.Struct("<QQQQIIIIIIQ")
"""wr_id, recv_wr_id, tag, mask, opcode, flags, unexpected_cnt, handle, num_sge, status, reserved."""
(
    OP_WR_ID,
    OP_RECV_WR_ID,
    OP_TAG,
    OP_MASK,
    OP_OPCODE,
    OP_FLAGS,
    OP_UNEXPECTED,
    OP_HANDLE,
    OP_NUM_SGE,
    OP_STATUS,
) = (0, 8, 16, 24, 32, 36, 40, 44, 48, 52)
OP_HEADER_BYTES = 64
DB_OPS_PRODUCER, DB_OPS_CONSUMER = 0, 8

MAX_TAG_SGES = 4
"""SGEs of a tagged buffer that the device has room for; a profile may have fewer."""
OP_STRIDE = OP_HEADER_BYTES + MAX_TAG_SGES * SGE_BYTES

TMH = struct.Struct(">B3xIQ")
"""Tag-matching header, network order: operation (``TmhOp``), the program's own 32 bits, tag."""
TMH_OP, TMH_APP_CTX, TMH_TAG = 0, 4, 8
RVH = struct.Struct(">QII")
"""Rendezvous header behind it: address, rkey and bytes of the sender's buffer."""
RVH_VA, RVH_RKEY, RVH_LENGTH = 16, 24, 28
TMH_BYTES, RNDV_BYTES = TMH.size, TMH.size + RVH.size
COUNT_MASK = 0xFFFF
"""Unexpected messages are counted in 16 bits (mlx5 ``sw_cnt``, ``hw_phase_cnt``)."""

TAG_FREED = 1 << 31
"""In a CQE's ``wqe_counter``: the rest is the handle of a tag that is free again."""


class TmhOp(IntEnum):
    """``ibv_tmh_op``."""

    NO_TAG, RNDV, FIN, EAGER = range(4)


class TagOp(IntEnum):
    """``ibv_ops_wr_opcode``."""

    ADD, DEL, SYNC = range(3)


class OpFlag(IntEnum):
    """``ibv_ops_flags``."""

    SIGNALED, SYNC = 1, 2
