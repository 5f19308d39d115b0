"""Commands on memory keys, their translations, and device memory.

UPDATE_MTT takes effect when it completes. What takes translations or rights away (ZAP_MTT, MODIFY_MKEY, DESTROY_MKEY)
does so at once, in the tables and in the IOTLB, and completes when the DMA translated before has drained.
"""

from nicemu._jit import fill_bytes, jit, store64
from nicemu.abi.command import IMPLICIT_SHIFT, Command, MkeyFlag, Rereg, Status
from nicemu.abi.verbs import PAGE_SHIFT
from nicemu.nic import hooks, iotlb, mtt
from nicemu.nic.command_slot import mailbox, param
from nicemu.nic.hooks import FULL, LAZY, ask
from nicemu.nic.mkey import IMPLICIT, WINDOW, keys_changed
from nicemu.nic.mw import close_window
from nicemu.nic.psn import in_range
from nicemu.nic.spread import COMMANDS, factor, scaled
from nicemu.tables import radix
from nicemu.tables.rows import control, mkey
from nicemu.tables.trace import Ev, trace

CREATE_MKEY, DESTROY_MKEY, MODIFY_MKEY = int(Command.CREATE_MKEY), int(Command.DESTROY_MKEY), int(Command.MODIFY_MKEY)
UPDATE_MTT, ZAP_MTT = int(Command.UPDATE_MTT), int(Command.ZAP_MTT)
ALLOC_DM, FREE_DM = int(Command.ALLOC_DM), int(Command.FREE_DM)
OK, BAD_PARAM, BAD_STATE = 0, int(Status.BAD_PARAM), int(Status.BAD_STATE)
BAD_RESOURCE = int(Status.BAD_RESOURCE)
TRANSLATION, PD, ACCESS = int(Rereg.TRANSLATION), int(Rereg.PD), int(Rereg.ACCESS)
DEVICE_MEMORY = int(MkeyFlag.DEVICE_MEMORY)
EV_ZAP = int(Ev.MTT_ZAP)
EVERYTHING = 1 << 60
POISON = 0xDB


@jit
def is_mkey_command(opcode):
    """A command of this file."""
    if opcode == CREATE_MKEY or opcode == DESTROY_MKEY or opcode == MODIFY_MKEY:
        return True
    return opcode == UPDATE_MTT or opcode == ZAP_MTT or opcode == ALLOC_DM or opcode == FREE_DM


@jit
def mkey_row(n, at):
    """Row of the mkey a command names in word 0, or 0."""
    index = param(at, 0)
    return n.mkey_base + index if 0 < index < n.mkey_count else 0


@jit
def pages_of(m):
    """MTT entries of a region; children of an implicit one."""
    shift = IMPLICIT_SHIFT if m.flags & IMPLICIT else m.page_shift
    mask = (1 << shift) - 1
    return (m.length >> shift) + ((m.first + (m.length & mask) + mask) >> shift)


@jit
def lay_out(world, m, skew, page_shift):
    """Page size, place of the first byte, and an empty tree of the right height."""
    m.page_shift = PAGE_SHIFT if page_shift == 0 else page_shift
    mask = (1 << m.page_shift) - 1
    m.first = ((m.base & mask) + (skew & mask)) & mask
    m.levels = mtt.levels_for(pages_of(m))
    m.root = radix.new_node(world)
    m.pages_mapped = 0


@jit
def create_mkey(world, n, at):
    """CREATE_MKEY."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid:
        return BAD_RESOURCE
    m = mkey(world, row)
    m.base = param(at, 3)
    m.length = param(at, 4)
    m.flags = param(at, 6)
    m.memory = 0
    if m.flags & DEVICE_MEMORY:
        if not in_range(param(at, 10), m.length, 0, n.memory_bytes):
            return BAD_PARAM
        m.memory = n.memory + param(at, 10)
    m.key = param(at, 1)
    m.pd = param(at, 2)
    m.access = param(at, 5)
    m.number = param(at, 7)
    m.busy_until = 0
    m.windows = 0
    m.parent = 0
    m.qp = 0
    lay_out(world, m, param(at, 8), param(at, 9))
    m.valid = 1
    return OK


@jit
def forget_all(world, n, row):
    """Every translation of an mkey goes."""
    m = mkey(world, row)
    iotlb.flush(world, n.number, row, 0, EVERYTHING)
    radix.free_tree(world, m.root, m.levels)
    m.root = 0


@jit
def destroy_mkey(world, n, at):
    """DESTROY_MKEY. A region with windows bound to it stays (IBA 10.6.7.2.6)."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid == 0:
        return BAD_RESOURCE
    m = mkey(world, row)
    if m.windows > 0:
        return BAD_STATE
    if m.flags & WINDOW:
        close_window(world, n, m)
    m.valid = 0
    keys_changed(n)
    forget_all(world, n, row)
    store64(mailbox(at), m.key)
    return OK


@jit
def modify_mkey(world, n, at):
    """MODIFY_MKEY: re-registration."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid == 0 or mkey(world, row).flags & WINDOW:
        return BAD_RESOURCE
    m = mkey(world, row)
    if m.windows > 0:
        return BAD_STATE
    mask = param(at, 1)
    keys_changed(n)
    m.key = param(at, 2)
    if mask & PD:
        m.pd = param(at, 3)
    if mask & ACCESS:
        m.access = param(at, 6)
    if mask & TRANSLATION:
        forget_all(world, n, row)
        m.base = param(at, 4)
        m.length = param(at, 5)
        m.flags = param(at, 7)
        lay_out(world, m, param(at, 8), param(at, 9))
    return OK


@jit
def check_pages(world, n, at):
    """Status of a page range of an mkey."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid == 0:
        return BAD_RESOURCE
    return OK if in_range(param(at, 1), param(at, 2), 0, pages_of(mkey(world, row))) else BAD_PARAM


@jit
def flush_zapped(world, n, row, first, pages):
    """IOTLB lines of zapped entries go, as firmware says; a mutant of the device does not ask it."""
    how = LAZY if n.zap_without_flush else ask(world, n.number, hooks.INVALIDATION, n.number, pages)
    if how == FULL:
        iotlb.flush_all(world, n)
    elif how == LAZY:
        n.lazy_invalidations += 1
    else:
        iotlb.flush(world, n.number, row, first, pages)


@jit
def zap_mtt(world, n, at):
    """ZAP_MTT: entries and IOTLB lines go at once."""
    status = check_pages(world, n, at)
    if status != OK:
        return status
    row = mkey_row(n, at)
    m = mkey(world, row)
    first, pages = param(at, 1), param(at, 2)
    now = control(world, 0).now
    n.zaps += 1
    if m.busy_until > now:
        n.zap_drains += 1
    mtt.zap(world, row, first, pages)
    flush_zapped(world, n, row, first, pages)
    trace(world, EV_ZAP, n.number, m.number, first, pages, max(m.busy_until - now, 0))
    return OK


@jit
def fill_memory(n, at, value):
    """A block of device memory gets one value throughout."""
    if not in_range(param(at, 0), param(at, 1), 0, n.memory_bytes):
        return BAD_PARAM
    fill_bytes(n.memory + param(at, 0), value, param(at, 1))
    return OK


@jit
def execute(world, n, opcode, at):
    """The part of a command that happens when it is decoded; its status."""
    if opcode == CREATE_MKEY:
        return create_mkey(world, n, at)
    if opcode == DESTROY_MKEY:
        return destroy_mkey(world, n, at)
    if opcode == MODIFY_MKEY:
        return modify_mkey(world, n, at)
    if opcode == ZAP_MTT:
        return zap_mtt(world, n, at)
    if opcode == UPDATE_MTT:
        return check_pages(world, n, at)
    return fill_memory(n, at, 0 if opcode == ALLOC_DM else POISON)


@jit
def completes_at(world, n, opcode, at):
    """When a command that was executed is done, ns."""
    now = control(world, 0).now
    stretch = factor(world, n.number, COMMANDS, n.commands)
    if opcode == UPDATE_MTT:
        return now + scaled(n.mtt_update_ns + param(at, 2) * n.mtt_update_page_ns, stretch)
    drained = mkey(world, mkey_row(n, at)).busy_until
    if opcode == ZAP_MTT:
        done = now + scaled(n.zap_ns + param(at, 2) * n.zap_page_ns, stretch)
        return done if n.zap_without_drain else max(done, drained)
    if opcode == DESTROY_MKEY or opcode == MODIFY_MKEY:
        return max(now, drained)
    return now


@jit
def update_mtt(world, n, at):
    """UPDATE_MTT, when it completes: the entries appear."""
    row = mkey_row(n, at)
    if mkey(world, row).valid:
        mtt.update(world, n.number, row, param(at, 1), param(at, 2), mailbox(at))
