"""Which operations of the newer posting interface each transport has (`ibv_qp_create_send_ops_flags`)."""

from __future__ import annotations

from nicemu.abi.verbs import QpType, WrOpcode
from nicemu.pyverbs.libibverbs_enums import ibv_qp_create_send_ops_flags as _ops

FLAG = {
    WrOpcode.SEND: _ops.IBV_QP_EX_WITH_SEND,
    WrOpcode.SEND_WITH_IMM: _ops.IBV_QP_EX_WITH_SEND_WITH_IMM,
    WrOpcode.SEND_WITH_INV: _ops.IBV_QP_EX_WITH_SEND_WITH_INV,
    WrOpcode.RDMA_WRITE: _ops.IBV_QP_EX_WITH_RDMA_WRITE,
    WrOpcode.RDMA_WRITE_WITH_IMM: _ops.IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
    WrOpcode.RDMA_READ: _ops.IBV_QP_EX_WITH_RDMA_READ,
    WrOpcode.ATOMIC_CMP_AND_SWP: _ops.IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP,
    WrOpcode.ATOMIC_FETCH_AND_ADD: _ops.IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD,
    WrOpcode.LOCAL_INV: _ops.IBV_QP_EX_WITH_LOCAL_INV,
    WrOpcode.BIND_MW: _ops.IBV_QP_EX_WITH_BIND_MW,
    WrOpcode.FLUSH: _ops.IBV_QP_EX_WITH_FLUSH,
    WrOpcode.ATOMIC_WRITE: _ops.IBV_QP_EX_WITH_ATOMIC_WRITE,
    WrOpcode.TSO: _ops.IBV_QP_EX_WITH_TSO,
}
"""The flag that asks for an operation."""


def _flags(opcodes: set[WrOpcode]) -> int:
    return sum(FLAG[opcode] for opcode in opcodes)


SENDS = {WrOpcode.SEND, WrOpcode.SEND_WITH_IMM}
UNRELIABLE = SENDS | {WrOpcode.RDMA_WRITE, WrOpcode.RDMA_WRITE_WITH_IMM, WrOpcode.LOCAL_INV, WrOpcode.BIND_MW}
RELIABLE = UNRELIABLE | {WrOpcode.RDMA_READ, WrOpcode.ATOMIC_CMP_AND_SWP, WrOpcode.ATOMIC_FETCH_AND_ADD}
RELIABLE |= {WrOpcode.SEND_WITH_INV, WrOpcode.FLUSH, WrOpcode.ATOMIC_WRITE}
OPCODES: dict[int, set[WrOpcode]] = {
    QpType.RC: RELIABLE,
    QpType.XRC_SEND: RELIABLE,
    QpType.UC: UNRELIABLE,
    QpType.UD: SENDS,
    QpType.RAW_PACKET: {WrOpcode.SEND},
}
"""The work requests of each transport (IBA table 'work request types')."""

OPERATIONS = {kind: _flags(opcodes) for kind, opcodes in OPCODES.items()}
OPERATIONS[QpType.RAW_PACKET] |= FLAG[WrOpcode.TSO]  # which a SendWR has no headers for
"""What the emulated device can do when asked through a QPEx."""
