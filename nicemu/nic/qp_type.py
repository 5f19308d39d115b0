"""What the transport types of QPs have in common and where they differ (IBA service types)."""

from nicemu._jit import jit
from nicemu.abi import command as abi
from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.wire import opcode as bth

RC, UC, UD = int(QpType.RC), int(QpType.UC), int(QpType.UD)
XRC_INI, XRC_TGT = int(QpType.XRC_SEND), int(QpType.XRC_RECV)
RAW_PACKET, WORK_QUEUE = int(QpType.RAW_PACKET), abi.WORK_QUEUE

RDMA_WRITE, WRITE_WITH_IMM = int(WrOpcode.RDMA_WRITE), int(WrOpcode.RDMA_WRITE_WITH_IMM)
SEND, SEND_WITH_IMM, SEND_WITH_INV = int(WrOpcode.SEND), int(WrOpcode.SEND_WITH_IMM), int(WrOpcode.SEND_WITH_INV)
RDMA_READ, LOCAL_INV, BIND_MW = int(WrOpcode.RDMA_READ), int(WrOpcode.LOCAL_INV), int(WrOpcode.BIND_MW)
ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD = int(WrOpcode.ATOMIC_CMP_AND_SWP), int(WrOpcode.ATOMIC_FETCH_AND_ADD)
FLUSH, ATOMIC_WRITE, TSO = int(WrOpcode.FLUSH), int(WrOpcode.ATOMIC_WRITE), int(WrOpcode.TSO)


def _mask(*opcodes: int) -> int:
    return sum(1 << opcode for opcode in opcodes)


DATAGRAM_WRS = _mask(SEND, SEND_WITH_IMM)
RAW_WRS = _mask(SEND, TSO)
UNRELIABLE_WRS = DATAGRAM_WRS | _mask(RDMA_WRITE, WRITE_WITH_IMM, LOCAL_INV, BIND_MW)
RELIABLE_WRS = UNRELIABLE_WRS | _mask(
    SEND_WITH_INV, RDMA_READ, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, FLUSH, ATOMIC_WRITE
)


@jit
def is_reliable(q):
    """RC and XRC: acknowledged, retried."""
    return q.type == RC or q.type == XRC_INI or q.type == XRC_TGT


@jit
def is_raw(q):
    """Raw packet QPs and work queues: no transport at all."""
    return q.type == RAW_PACKET or q.type == WORK_QUEUE


@jit
def transport_of(q):
    """High three bits of the BTH opcodes of a QP."""
    if is_raw(q):
        return bth.RAW
    if q.type == UC:
        return bth.UC
    if q.type == UD:
        return bth.UD
    return bth.RC if q.type == RC else bth.XRC


@jit
def may_post(q, opcode):
    """The transport has this work request."""
    if opcode > FLUSH + 1:
        return False
    allowed = RELIABLE_WRS
    if q.type == UC:
        allowed = UNRELIABLE_WRS
    elif q.type == UD:
        allowed = DATAGRAM_WRS
    elif is_raw(q):
        allowed = RAW_WRS if q.type == RAW_PACKET else 0
    return (allowed >> opcode) & 1 == 1


@jit
def is_local(opcode):
    """Work requests that the NIC does by itself."""
    return opcode == LOCAL_INV or opcode == BIND_MW


@jit
def returns_data(opcode):
    """READ, compare-and-swap, fetch-and-add: their scatter list is written."""
    return opcode == RDMA_READ or opcode == ATOMIC_CMP_AND_SWP or opcode == ATOMIC_FETCH_AND_ADD


@jit
def is_non_posted(opcode):
    """Requests that a response of their own answers: they count as outstanding READs and atomics (rxe counts ATOMIC
    WRITE and leaves out FLUSH)."""
    return returns_data(opcode) or opcode == FLUSH or opcode == ATOMIC_WRITE


@jit
def takes_receive(opcode):
    """Work requests that consume a receive WQE of the peer."""
    return opcode == WRITE_WITH_IMM or opcode == SEND or opcode == SEND_WITH_IMM or opcode == SEND_WITH_INV
