"""BTH opcodes, and what each carries (Linux rxe_opcode.c): one table, plain integers for kernels.

The high three bits of a BTH opcode are the transport, the low five the operation.
"""

from __future__ import annotations

from enum import IntEnum

from nicemu._jit import jit


class Transport(IntEnum):
    """High three bits of a BTH opcode; RAW, which no BTH has, is an Ethernet frame that is none of RoCE's."""

    RC, UC, RD, UD, CNP, XRC = range(6)
    RAW = 8


class RcOpcode(IntEnum):
    """Operations: low five bits of a BTH opcode; as RC opcodes they are the whole of it."""

    SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_LAST_IMM, SEND_ONLY, SEND_ONLY_IMM = range(6)
    WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_LAST_IMM, WRITE_ONLY, WRITE_ONLY_IMM = range(6, 12)
    READ_REQUEST, READ_RESP_FIRST, READ_RESP_MIDDLE, READ_RESP_LAST, READ_RESP_ONLY = range(12, 17)
    ACKNOWLEDGE, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD = range(17, 21)
    SEND_LAST_INV, SEND_ONLY_INV = 0x16, 0x17
    FLUSH, ATOMIC_WRITE = 0x1C, 0x1D


HEADERS: dict[RcOpcode, tuple[str, ...]] = {
    RcOpcode.SEND_FIRST: (), RcOpcode.SEND_MIDDLE: (), RcOpcode.SEND_LAST: (), RcOpcode.SEND_LAST_IMM: ("immdt",),
    RcOpcode.SEND_ONLY: (), RcOpcode.SEND_ONLY_IMM: ("immdt",),
    RcOpcode.WRITE_FIRST: ("reth",), RcOpcode.WRITE_MIDDLE: (), RcOpcode.WRITE_LAST: (),
    RcOpcode.WRITE_LAST_IMM: ("immdt",), RcOpcode.WRITE_ONLY: ("reth",), RcOpcode.WRITE_ONLY_IMM: ("reth", "immdt"),
    RcOpcode.READ_REQUEST: ("reth",), RcOpcode.READ_RESP_FIRST: ("aeth",), RcOpcode.READ_RESP_MIDDLE: (),
    RcOpcode.READ_RESP_LAST: ("aeth",), RcOpcode.READ_RESP_ONLY: ("aeth",), RcOpcode.ACKNOWLEDGE: ("aeth",),
    RcOpcode.ATOMIC_ACK: ("aeth", "atomicack"), RcOpcode.COMPARE_SWAP: ("atomiceth",),
    RcOpcode.FETCH_ADD: ("atomiceth",), RcOpcode.SEND_LAST_INV: ("ieth",), RcOpcode.SEND_ONLY_INV: ("ieth",),
    RcOpcode.FLUSH: ("feth", "reth"), RcOpcode.ATOMIC_WRITE: ("reth",),
}  # fmt: skip
"""Extended headers of an operation after the BTH, in order (RC)."""

_SENDS = tuple(RcOpcode(n) for n in range(6))
_WRITES = tuple(RcOpcode(n) for n in range(6, 12))
_RESPONSES = tuple(RcOpcode(n) for n in range(13, 19))
OPERATIONS: dict[Transport, tuple[RcOpcode, ...]] = {
    Transport.RC: tuple(RcOpcode),
    Transport.UC: _SENDS + _WRITES,
    Transport.UD: (RcOpcode.SEND_ONLY, RcOpcode.SEND_ONLY_IMM),
    Transport.XRC: tuple(RcOpcode),
}
"""Operations of each transport."""


def headers_of(transport: Transport, operation: RcOpcode) -> tuple[str, ...]:
    """Extended headers after the BTH: a datagram's DETH and an XRC request's XRCETH come first."""
    first: tuple[str, ...] = ()
    if transport == Transport.UD:
        first = ("deth",)
    elif transport == Transport.XRC and operation not in _RESPONSES:
        first = ("xrceth",)
    return first + HEADERS[operation]


CNP_OPCODE = 0x81
"""Congestion notification: a BTH and ``CNP_BYTES`` reserved bytes."""
CNP_BYTES = 16
CARRIES: dict[int, tuple[str, ...]] = {
    transport << 5 | operation: headers_of(transport, operation)
    for transport, operations in OPERATIONS.items()
    for operation in operations
} | {CNP_OPCODE: ()}
"""Extended headers of every defined BTH opcode."""


def name_of(opcode: int) -> str:
    """``RC SEND_ONLY``; an opcode that is not defined as a number."""
    if opcode == CNP_OPCODE:
        return "CNP"
    if opcode >> 5 == Transport.RAW:
        return "raw frame"
    if opcode not in CARRIES:
        return f"opcode {opcode:#04x}"
    return f"{Transport(opcode >> 5).name} {RcOpcode(opcode & 0x1F).name}"


# Plain integers, for kernels. Position of a packet in its message: index of an opcode's group plus one of these.
RC, UC, UD, CNP, XRC, RAW = 0, 1, 3, 4, 5, 8
RAW_FRAME = 31
"""Operation of a raw frame in packet records: none of the transport's."""
SEND, WRITE = int(RcOpcode.SEND_FIRST), int(RcOpcode.WRITE_FIRST)
FIRST, MIDDLE, LAST, LAST_IMM, ONLY, ONLY_IMM = range(6)
LAST_INV, ONLY_INV = 0x16, 0x17
READ_REQUEST, READ_RESP_FIRST, READ_RESP_MIDDLE = 12, 13, 14
READ_RESP_LAST, READ_RESP_ONLY, ACKNOWLEDGE, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD = 15, 16, 17, 18, 19, 20
FLUSH, ATOMIC_WRITE = 0x1C, 0x1D

# AETH syndromes (Linux rxe_hdr.h)
ACK_UNLIMITED = 0x1F
RNR_NAK = 0x20
NAK_SEQUENCE, NAK_INVALID_REQUEST, NAK_REMOTE_ACCESS, NAK_REMOTE_OPERATIONAL = 0x60, 0x61, 0x62, 0x63


def _members(*operations: int) -> int:
    """A set of operations as bits: one instruction to look up."""
    return sum(1 << operation for operation in operations)


_ATOMICS = _members(COMPARE_SWAP, FETCH_ADD)
_SENT = _members(*range(WRITE), LAST_INV, ONLY_INV)
_WRITTEN = _members(*range(WRITE, READ_REQUEST))
_ANSWERS = _members(*range(READ_RESP_FIRST, ATOMIC_ACK + 1))
_NON_POSTED = _ATOMICS | _members(READ_REQUEST, FLUSH, ATOMIC_WRITE)
_WITH_IMM = _members(*(group + at for group in (SEND, WRITE) for at in (LAST_IMM, ONLY_IMM)))
_INSIDE = _members(*(group + at for group in (SEND, WRITE) for at in (MIDDLE, LAST, LAST_IMM)), LAST_INV)
_GOES_ON = _members(*(group + at for group in (SEND, WRITE) for at in (FIRST, MIDDLE)))


@jit
def _is_in(members, operation):
    return members >> (operation & 31) & 1 != 0


@jit
def is_send(operation):
    """SEND_FIRST .. SEND_ONLY_IMM, SEND_LAST_INV, SEND_ONLY_INV."""
    return _is_in(_SENT, operation)


@jit
def is_write(operation):
    """WRITE_FIRST .. WRITE_ONLY_IMM."""
    return _is_in(_WRITTEN, operation)


@jit
def is_response(operation):
    """READ_RESP_FIRST .. ATOMIC_ACK."""
    return _is_in(_ANSWERS, operation)


@jit
def is_atomic(operation):
    """COMPARE_SWAP, FETCH_ADD."""
    return _is_in(_ATOMICS, operation)


@jit
def is_non_posted(operation):
    """READ request, atomic, FLUSH, ATOMIC_WRITE: each is answered by a response of its own."""
    return _is_in(_NON_POSTED, operation)


@jit
def is_request(operation):
    """A defined operation that a requester sends."""
    return _is_in(_SENT | _WRITTEN | _NON_POSTED, operation)


@jit
def with_imm(operation):
    """The packet carries immediate data."""
    return _is_in(_WITH_IMM, operation)


@jit
def starts(operation):
    """The packet starts a message."""
    return not _is_in(_INSIDE, operation)


@jit
def ends(operation):
    """The packet ends a message."""
    return not _is_in(_GOES_ON, operation)
