"""Memory windows: binding, local and remote invalidation (Linux rxe_mw.c, whose clause numbers these are).

A window is an mkey whose ``parent`` is the region it opens; translation goes through the region. A type 2 window
belongs to the QP that bound it (type 2B): it is accessible and can be invalidated through that QP only, and goes with
the QP's life: a QP that was reset or destroyed has no open windows.
"""

from nicemu._jit import cold, jit, load32, load64
from nicemu.abi import rings
from nicemu.abi.command import MkeyFlag
from nicemu.abi.verbs import Access, WcStatus
from nicemu.nic.defects import WINDOW_OWNER, has
from nicemu.nic.mkey import KEY_BITS, MW_TYPE_2, WINDOW, find_mkey, keys_changed
from nicemu.nic.psn import in_range
from nicemu.tables.rows import mkey, nic, qp

MW_BIND_ERR, LOC_QP_OP_ERR = int(WcStatus.MW_BIND_ERR), int(WcStatus.LOC_QP_OP_ERR)
LOCAL_WRITE, MW_BIND, ZERO_BASED = int(Access.LOCAL_WRITE), int(Access.MW_BIND), int(Access.ZERO_BASED)
CHANGES = int(Access.REMOTE_WRITE | Access.REMOTE_ATOMIC)
RIGHTS = CHANGES | int(Access.REMOTE_READ)
NO_REGION = WINDOW | int(MkeyFlag.NULL)


@jit
def close_window(world, n, m):
    """The window opens nothing any more."""
    keys_changed(n)
    if m.parent != 0:
        mkey(world, m.parent).windows -= 1
    m.parent = 0
    m.length = 0
    m.access = 0
    m.qp = 0


@jit
def find_window(world, n, key):
    """Row of the window that ``key`` names, 0 if none. Of a type 2 window only the index counts: the program chooses
    the variant, and after an invalidation the library does not know it."""
    index = key >> KEY_BITS
    if index <= 0 or index >= n.mkey_count:
        return 0
    row = n.mkey_base + index
    m = mkey(world, row)
    if m.valid == 0 or m.flags & WINDOW == 0:
        return 0
    return row if m.flags & MW_TYPE_2 != 0 or m.key == key else 0


@jit
def check_region(world, q, region, at):
    """The region may be opened so: it is one (a zero-based one is not), of this PD, with the right to bind (C10-73),
    writable if the window changes it (C10-74), and the window lies inside (C10-75)."""
    m = mkey(world, region)
    access = load32(at + rings.SEND_IMM)
    if region == 0 or m.flags & NO_REGION != 0 or m.pd != q.pd or m.access & (MW_BIND | ZERO_BASED) != MW_BIND:
        return False
    if access & CHANGES != 0 and m.access & LOCAL_WRITE == 0:
        return False
    return in_range(load64(at + rings.SEND_REMOTE_ADDR), load64(at + rings.SEND_SWAP), m.base, m.length)


@jit
def check_window(q, m, at):
    """The window may be bound so: of this PD (C10-72), rights that a window has (LOCAL_WRITE may be named, and gives it
    nothing), its own index in the new key; type 1 never zero-based
    (o10-36.2.2); type 2 not bound already (o10-37.2.30) and not to nothing (o10-37.2.40)."""
    access = load32(at + rings.SEND_IMM)
    if m.pd != q.pd or access & ~(RIGHTS | LOCAL_WRITE | ZERO_BASED) != 0:
        return False
    if load32(at + rings.SEND_RKEY) >> KEY_BITS != m.key >> KEY_BITS:
        return False
    if m.flags & MW_TYPE_2 != 0:
        return m.parent == 0 and load64(at + rings.SEND_SWAP) != 0
    return access & ZERO_BASED == 0


@jit
def open_window(world, q_row, m, region, at):
    """The window opens ``length`` bytes of the region under its new key."""
    va = load64(at + rings.SEND_REMOTE_ADDR)
    access = load32(at + rings.SEND_IMM)
    parent = mkey(world, region)
    parent.windows += 1
    m.parent = region
    m.parent_key = parent.key
    m.parent_va = va
    m.base = 0 if access & ZERO_BASED else va
    m.length = load64(at + rings.SEND_SWAP)
    m.access = access & RIGHTS
    m.qp = q_row
    m.life = qp(world, q_row).incarnation


@cold
def bind_mw(world, q_row, at):
    """BIND_MW: the send WQE at host address ``at`` opens a window, or (type 1, no bytes) closes it. 0, or MW_BIND_ERR
    and nothing has changed."""
    q = qp(world, q_row)
    n = nic(world, q.nic)
    window = find_window(world, n, load64(at + rings.SEND_COMPARE_ADD))
    m = mkey(world, window)
    if window == 0 or not check_window(q, m, at):
        return MW_BIND_ERR
    empty = load64(at + rings.SEND_SWAP) == 0
    region = 0 if empty else find_mkey(world, q.nic, load32(at + rings.SEND_REMOTE_QPN))
    if not empty and not check_region(world, q, region, at):
        return MW_BIND_ERR
    close_window(world, n, m)
    m.key = load32(at + rings.SEND_RKEY)
    if not empty:
        open_window(world, q_row, m, region, at)
    n.mw_binds += 1
    return 0


@jit
def invalidate(world, q_row, key):
    """Close the type 2 window that ``key`` names, bound through this QP. False: there is none (o10-37.2.26: a type 1
    window or a region is not invalidated so)."""
    q = qp(world, q_row)
    row = find_mkey(world, q.nic, key)
    m = mkey(world, row)
    if row == 0 or m.flags & MW_TYPE_2 == 0 or m.pd != q.pd or m.parent == 0:
        return False
    if m.qp != q_row and not has(world, q.nic, WINDOW_OWNER):
        return False
    n = nic(world, q.nic)
    close_window(world, n, m)
    n.mw_invalidations += 1
    return True


@cold
def local_inv(world, q_row, key):
    """LOCAL_INV of a key: 0, or LOC_QP_OP_ERR."""
    return 0 if invalidate(world, q_row, key) else LOC_QP_OP_ERR


@cold
def remote_inv(world, q_row, key):
    """The peer's SEND with invalidate names ``key``. True: it was valid here and is not any more."""
    return invalidate(world, q_row, key)
