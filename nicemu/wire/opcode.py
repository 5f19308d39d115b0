"""BTH opcodes of RC and what each carries (Linux rxe_opcode.c): one table, plain integers for kernels."""

from __future__ import annotations

from enum import IntEnum


class RcOpcode(IntEnum):
    """BTH opcode, RC transport (high three bits 000)."""

    SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_LAST_IMM, SEND_ONLY, SEND_ONLY_IMM = range(6)
    WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_LAST_IMM, WRITE_ONLY, WRITE_ONLY_IMM = range(6, 12)
    READ_REQUEST, READ_RESP_FIRST, READ_RESP_MIDDLE, READ_RESP_LAST, READ_RESP_ONLY = range(12, 17)
    ACKNOWLEDGE, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD = range(17, 21)


HEADERS: dict[RcOpcode, tuple[str, ...]] = {
    RcOpcode.SEND_FIRST: (), RcOpcode.SEND_MIDDLE: (), RcOpcode.SEND_LAST: (), RcOpcode.SEND_LAST_IMM: ("immdt",),
    RcOpcode.SEND_ONLY: (), RcOpcode.SEND_ONLY_IMM: ("immdt",),
    RcOpcode.WRITE_FIRST: ("reth",), RcOpcode.WRITE_MIDDLE: (), RcOpcode.WRITE_LAST: (),
    RcOpcode.WRITE_LAST_IMM: ("immdt",), RcOpcode.WRITE_ONLY: ("reth",), RcOpcode.WRITE_ONLY_IMM: ("reth", "immdt"),
    RcOpcode.READ_REQUEST: ("reth",), RcOpcode.READ_RESP_FIRST: ("aeth",), RcOpcode.READ_RESP_MIDDLE: (),
    RcOpcode.READ_RESP_LAST: ("aeth",), RcOpcode.READ_RESP_ONLY: ("aeth",), RcOpcode.ACKNOWLEDGE: ("aeth",),
    RcOpcode.ATOMIC_ACK: ("aeth", "atomicack"), RcOpcode.COMPARE_SWAP: ("atomiceth",),
    RcOpcode.FETCH_ADD: ("atomiceth",),
}  # fmt: skip
"""Extended headers after the BTH, in order."""

# The position of a packet in its message, for kernels: index of an opcode's group plus one of these.
SEND, WRITE = int(RcOpcode.SEND_FIRST), int(RcOpcode.WRITE_FIRST)
FIRST, MIDDLE, LAST, LAST_IMM, ONLY, ONLY_IMM = range(6)
READ_REQUEST, READ_RESP_FIRST, READ_RESP_MIDDLE = 12, 13, 14
READ_RESP_LAST, READ_RESP_ONLY, ACKNOWLEDGE, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD = 15, 16, 17, 18, 19, 20
LAST_RC = FETCH_ADD

# AETH syndromes (Linux rxe_hdr.h)
ACK_UNLIMITED = 0x1F
RNR_NAK = 0x20
NAK_SEQUENCE, NAK_INVALID_REQUEST, NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATIONAL = 0x60, 0x61, 0x62, 0x63
