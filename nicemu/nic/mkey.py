"""Memory keys: lkey/rkey -> protection domain, range, access rights (Linux rxe_mr.c)."""

from nicemu._jit import jit
from nicemu.nic.psn import in_range
from nicemu.tables.rows import mkey, nic, qp

KEY_BITS = 8
MKEY_OK, MKEY_BAD = 0, -1


@jit
def find_mkey(world, n, key):
    """Row of the mkey that ``key`` (index << 8 | variant) names, 0 if there is none or the variant is stale."""
    index = key >> KEY_BITS
    n_row = nic(world, n)
    if index <= 0 or index >= n_row.mkey_count:
        return 0
    row = n_row.mkey_base + index
    m = mkey(world, row)
    if m.valid == 0 or m.key != key:
        return 0
    return row


@jit
def check_mkey(world, q_row, key, pd, va, length, access):
    """Row of an mkey that this QP may use, or 0: wrong key, PD, range or rights. ``access``: bits that must all be
    granted."""
    row = find_mkey(world, qp(world, q_row).nic, key)
    if row == 0:
        return 0
    m = mkey(world, row)
    if m.pd != pd or m.access & access != access:
        return 0
    if not in_range(va, length, m.base, m.length):
        return 0
    return row
