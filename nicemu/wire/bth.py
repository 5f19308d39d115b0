"""Base Transport Header: in front of every RoCE packet (layout: Linux rxe_hdr.h)."""

from __future__ import annotations

from nicemu.wire.header import FLAG, HEX, RESERVED, Header, bits, header

DEFAULT_PKEY = 0xFFFF


@header
class Bth(Header):
    """``pad``: bytes that fill the payload up to a multiple of four. ``fecn``: congestion
    was met on the way; ``becn``: slow down."""

    opcode: int = bits(8, HEX)
    solicited: int = bits(1, FLAG)
    migreq: int = bits(1, FLAG)
    pad: int = bits(2)
    version: int = bits(4, RESERVED)
    pkey: int = bits(16, HEX, default=DEFAULT_PKEY)
    fecn: int = bits(1, FLAG, variant=True)
    becn: int = bits(1, FLAG, variant=True)
    reserved6: int = bits(6, RESERVED, variant=True)
    dest_qp: int = bits(24, HEX)
    ack_req: int = bits(1, FLAG)
    reserved7: int = bits(7, RESERVED)
    psn: int = bits(24)
