"""Memory windows: binding, local and remote invalidation (Linux rxe_mw.c)."""

from nicemu._jit import jit
from nicemu.abi.verbs import WcStatus

MW_BIND_ERR = int(WcStatus.MW_BIND_ERR)


@jit
def bind_mw(world, q_row, at):
    """BIND_MW: the send WQE at host address ``at`` opens a window. 0, or MW_BIND_ERR."""
    return MW_BIND_ERR


@jit
def local_inv(world, q_row, key):
    """LOCAL_INV of a key. 0, or LOC_QP_OP_ERR's kin as the work completion's status."""
    return MW_BIND_ERR


@jit
def remote_inv(world, q_row, key):
    """The peer's SEND with invalidate names ``key``. True: it was valid here and is not any more."""
    return False
