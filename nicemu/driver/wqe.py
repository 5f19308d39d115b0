"""Reading a WQE's data segments out of a QP's ring (``mlx5_ib_mr_wqe_pfault_handler``'s parsers)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from nicemu.abi.rings import RECV_HEADER_BYTES, RECV_WQE, SEND_HEADER_BYTES, SGE, SGE_BYTES, FaultType
from nicemu.abi.verbs import SendFlag
from nicemu.driver.qp import Qp

SEND_HEAD = struct.Struct("<QIII")
"""The first fields of ``SEND_WQE``, up to how many segments it has."""
GET_SGE = SGE.unpack_from
RESPONDER_RECV, INLINE = int(FaultType.RESPONDER_RECV), int(SendFlag.INLINE)


class Segment(NamedTuple):
    """A data segment: memory key, address, bytes."""

    key: int
    address: int
    length: int


def data_segments(pair: Qp, fault_type: int, counter: int) -> list[Segment]:
    """The data segments of the WQE that faulted. Inline data needs none. One without bytes is passed over, whatever its
    key and address.

    Not for WQEs of an SRQ: the device has its own copy, and the slot may hold another WQE already.
    """
    if fault_type == RESPONDER_RECV:
        ring, slots, stride, header = pair.recv_ring.view, pair.recv_slots, pair.recv_stride, RECV_HEADER_BYTES
        at = (counter & (slots - 1)) * stride
        count = RECV_WQE.unpack_from(ring, at)[1]
    else:
        ring, slots, stride, header = pair.send_ring.view, pair.send_slots, pair.send_stride, SEND_HEADER_BYTES
        at = (counter & (slots - 1)) * stride
        _, _, flags, count = SEND_HEAD.unpack_from(ring, at)
        if flags & INLINE:
            count = 0
    count = min(count, (stride - header) // SGE_BYTES)
    segments = []
    for number in range(count):
        address, length, key = GET_SGE(ring, at + header + number * SGE_BYTES)
        if length:
            segments.append(Segment(key, address, length))
    return segments


def remaining(segments: list[Segment], bytes_committed: int) -> list[Segment]:
    """What is left of them after the bytes that the device has done already."""
    if not bytes_committed:
        return segments
    left = []
    for segment in segments:
        skip = min(bytes_committed, segment.length)
        bytes_committed -= skip
        if segment.length > skip:
            left.append(Segment(segment.key, segment.address + skip, segment.length - skip))
    return left
