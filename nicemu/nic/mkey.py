"""Memory keys: lkey/rkey -> protection domain, range, access rights (Linux rxe_mr.c, rxe_mw.c)."""

from nicemu._jit import cold, jit
from nicemu.abi.command import IMPLICIT_SHIFT, MkeyFlag
from nicemu.abi.verbs import Access
from nicemu.nic.defects import WINDOW_BOUNDS, has
from nicemu.nic.psn import in_range
from nicemu.tables import radix
from nicemu.tables.rows import mkey, nic, qp

KEY_BITS = 8
NULL, IMPLICIT = int(MkeyFlag.NULL), int(MkeyFlag.IMPLICIT)
MW_TYPE_2, WINDOW = int(MkeyFlag.MW_TYPE_2), int(MkeyFlag.MW_TYPE_1 | MkeyFlag.MW_TYPE_2)
REMOTE = int(
    Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC | Access.FLUSH_GLOBAL | Access.FLUSH_PERSISTENT
)


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
def keys_changed(n):
    """A memory key lost something: what was found of any of them is looked up again."""
    n.key_changes += 1


@cold
def is_open(world, q_row, m):
    """The window is bound, its region is still the one it was bound to, and a type 2 window is used by its QP."""
    parent = mkey(world, m.parent)
    if m.parent == 0 or parent.valid == 0 or parent.key != m.parent_key:
        return False
    return m.flags & MW_TYPE_2 == 0 or (m.qp == q_row and m.life == qp(world, q_row).incarnation)


@jit
def check_mkey(world, q_row, key, pd, va, length, access):
    """Row of an mkey that this QP may use, or 0: wrong key, PD, range or rights. ``access``: bits that must all be
    granted; without a remote right among them the key is an lkey, which a window's never is."""
    row = find_mkey(world, qp(world, q_row).nic, key)
    if row == 0:
        return 0
    m = mkey(world, row)
    if m.pd != pd or m.access & access != access:
        return 0
    if m.flags & WINDOW != 0 and (access & REMOTE == 0 or not is_open(world, q_row, m)):
        return 0
    if m.flags & NULL == 0 and not in_range(va, length, m.base, m.length):
        return row if overlooked(world, q_row, m, va, length) else 0
    return row


@jit
def still_granted(world, q_row, va, length, access):
    """The key of the message in progress still grants what it did when the message began, to these bytes at least."""
    q = qp(world, q_row)
    if q.keys_seen == nic(world, q.nic).key_changes:
        return True
    return check_mkey(world, q_row, q.message_key, q.pd, va, length, access) != 0


@cold
def overlooked(world, q_row, m, va, length):
    """The range is outside of a window and inside of its region, and the device does not notice."""
    if m.flags & WINDOW == 0 or not has(world, qp(world, q_row).nic, WINDOW_BOUNDS):
        return False
    region = mkey(world, m.parent)
    return in_range(va + m.parent_va - m.base, length, region.base, region.length)


@cold
def child_of(world, n, m, va):
    """Row of the child mkey that an implicit mkey has for ``va``, 0 if none yet."""
    key = radix.find(world, m.root, m.levels, va >> IMPLICIT_SHIFT)
    return 0 if key == 0 else find_mkey(world, n, key)
