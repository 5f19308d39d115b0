"""Extended transport headers: what stands between BTH and payload (layouts: Linux rxe_hdr.h).

Which opcode carries which is ``opcode.CARRIES``; ``XTH`` has them under its names. Left out: RDETH (reliable datagram).
"""

from __future__ import annotations

from nicemu.wire.header import HEX, RESERVED, Header, bits, header


@header
class Reth(Header):
    """RDMA: where in the responder's memory, and how much of the message (FLUSH: of the region)."""

    va: int = bits(64, HEX)
    rkey: int = bits(32, HEX)
    length: int = bits(32)


@header
class Aeth(Header):
    """ACK: syndrome and message sequence number."""

    syndrome: int = bits(8, HEX)
    msn: int = bits(24)


@header
class AtomicEth(Header):
    """Atomic: FETCH_ADD has its addend in ``swap_add`` and ignores ``compare``."""

    va: int = bits(64, HEX)
    rkey: int = bits(32, HEX)
    swap_add: int = bits(64, HEX)
    compare: int = bits(64, HEX)


@header
class AtomicAckEth(Header):
    """Atomic ACK: what was in memory before."""

    original: int = bits(64, HEX)


@header
class ImmDt(Header):
    """Immediate data: four bytes that are passed on as they are."""

    imm: int = bits(32, HEX)


@header
class Ieth(Header):
    """R_Key that the responder invalidates."""

    rkey: int = bits(32, HEX)


@header
class Deth(Header):
    """Datagram: Q_Key and the sender's QP."""

    qkey: int = bits(32, HEX)
    reserved8: int = bits(8, RESERVED)
    source_qp: int = bits(24, HEX)


@header
class XrcEth(Header):
    """XRC: the SRQ that the message is for."""

    reserved8: int = bits(8, RESERVED)
    srqn: int = bits(24, HEX)


@header
class Feth(Header):
    """FLUSH: selectivity level and placement type."""

    reserved26: int = bits(26, RESERVED)
    selectivity: int = bits(2)
    placement: int = bits(4)


XTH: dict[str, type[Header]] = {
    "reth": Reth, "aeth": Aeth, "atomiceth": AtomicEth, "atomicack": AtomicAckEth, "immdt": ImmDt, "ieth": Ieth,
    "deth": Deth, "xrceth": XrcEth, "feth": Feth,
}  # fmt: skip
"""Extended headers by the names of ``opcode.HEADERS``."""
