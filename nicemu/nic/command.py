"""The command queue: the only way the driver changes device tables.

A command is decoded ``command_ns`` after its doorbell. UPDATE_MTT takes effect when it completes; ZAP_MTT clears
entries and flushes the IOTLB at once and completes when DMA translated before has drained. The completion is an EQE.
"""

from nicemu._jit import jit, load32, load64, store32
from nicemu.abi import command as abi
from nicemu.abi.command import Command, Status
from nicemu.abi.rings import EqeType
from nicemu.nic import iotlb, mtt
from nicemu.nic.eq import post_eqe
from nicemu.nic.psn import in_range
from nicemu.nic.qp_command import object_command, param
from nicemu.tables import radix, units
from nicemu.tables.heap import push
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.rows import control, cq, mkey, nic
from nicemu.tables.trace import Ev, trace

NOP, CREATE_MKEY, DESTROY_MKEY = int(Command.NOP), int(Command.CREATE_MKEY), int(Command.DESTROY_MKEY)
CREATE_CQ, DESTROY_CQ = int(Command.CREATE_CQ), int(Command.DESTROY_CQ)
UPDATE_MTT, ZAP_MTT, PAGE_FAULT_RESUME = int(Command.UPDATE_MTT), int(Command.ZAP_MTT), int(Command.PAGE_FAULT_RESUME)
OK = 0
BAD_PARAM, BAD_RESOURCE = int(Status.BAD_PARAM), int(Status.BAD_RESOURCE)
CMD, COMMAND_EQN = int(EqeType.CMD), 1
EV_COMMAND, EV_DONE, EV_ZAP = int(Ev.COMMAND), int(Ev.COMMAND_DONE), int(Ev.MTT_ZAP)


@jit
def slot_address(n, slot):
    """Host address of a command slot."""
    return n.command_ring + (slot & (abi.COMMAND_SLOTS - 1)) * abi.COMMAND_BYTES


@jit
def mkey_row(n, at):
    """Row of the mkey a command names in word 0, or 0."""
    index = param(at, 0)
    return n.mkey_base + index if 0 < index < n.mkey_count else 0


@jit
def pages_of(m):
    """Pages that a region touches."""
    return ((m.base & 4095) + m.length + 4095) >> 12


@jit
def create_mkey(world, n, at):
    """CREATE_MKEY."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid:
        return BAD_RESOURCE
    m = mkey(world, row)
    m.key = param(at, 1)
    m.pd = param(at, 2)
    m.base = param(at, 3)
    m.length = param(at, 4)
    m.access = param(at, 5)
    m.flags = param(at, 6)
    m.number = param(at, 7)
    m.levels = mtt.levels_for(pages_of(m))
    m.root = radix.new_node(world)
    m.pages_mapped = 0
    m.busy_until = 0
    m.valid = 1
    return OK


@jit
def forget(world, n, row, first, pages):
    """Clear translations and flush them from the IOTLB (unless a mutant of the device does not)."""
    mtt.zap(world, row, first, pages)
    if n.zap_without_flush == 0:
        iotlb.flush(world, n.number, row, first, pages)


@jit
def destroy_mkey(world, n, at):
    """DESTROY_MKEY."""
    row = mkey_row(n, at)
    if row == 0 or mkey(world, row).valid == 0:
        return BAD_RESOURCE
    m = mkey(world, row)
    m.valid = 0
    iotlb.flush(world, n.number, row, 0, 1 << 60)
    radix.free_tree(world, m.root, m.levels)
    m.root = 0
    return OK


@jit
def create_cq(world, n, at):
    """CREATE_CQ."""
    cqn = param(at, 0)
    if not 0 < cqn < n.cq_count or cq(world, n.cq_base + cqn).valid:
        return BAD_RESOURCE
    c = cq(world, n.cq_base + cqn)
    c.nic = n.number
    c.number = cqn
    c.ring = param(at, 1)
    c.slots = param(at, 2)
    c.doorbell_record = param(at, 3)
    c.eqn = n.eq_base + param(at, 4)
    c.produced = 0
    c.armed = 0
    c.watch = 0
    c.overrun = 0
    c.valid = 1
    return OK


@jit
def execute(world, n, opcode, at):
    """Commands that take effect when they are decoded."""
    if opcode == CREATE_MKEY:
        return create_mkey(world, n, at)
    if opcode == DESTROY_MKEY:
        return destroy_mkey(world, n, at)
    if opcode == CREATE_CQ:
        return create_cq(world, n, at)
    if opcode == DESTROY_CQ:
        cqn = param(at, 0)
        if not 0 < cqn < n.cq_count or cq(world, n.cq_base + cqn).valid == 0:
            return BAD_RESOURCE
        cq(world, n.cq_base + cqn).valid = 0
        return OK
    return OK if opcode == NOP else object_command(world, n, opcode, at)


@jit
def check_pages_or_token(world, n, opcode, at):
    """Status of what commands on translations and faults name: mkey, page range, token."""
    if opcode == UPDATE_MTT or opcode == ZAP_MTT:
        row = mkey_row(n, at)
        if row == 0 or mkey(world, row).valid == 0:
            return BAD_RESOURCE
        return OK if in_range(param(at, 1), param(at, 2), 0, pages_of(mkey(world, row))) else BAD_PARAM
    if opcode == PAGE_FAULT_RESUME:
        known = in_range(param(at, 0), 1, n.qp_base * FAULTS_PER_QP, n.qp_count * FAULTS_PER_QP)
        return OK if known else BAD_RESOURCE
    return OK


@jit
def zap(world, n, at):
    """ZAP_MTT: entries and IOTLB lines go at once; the answer is when no DMA uses them any more."""
    now = control(world, 0).now
    m = mkey(world, mkey_row(n, at))
    first, pages = param(at, 1), param(at, 2)
    n.zaps += 1
    if m.busy_until > now:
        n.zap_drains += 1
    forget(world, n, mkey_row(n, at), first, pages)
    trace(world, EV_ZAP, n.number, m.number, first, pages, max(m.busy_until - now, 0))
    done = now + n.zap_ns + pages * n.zap_page_ns
    return done if n.zap_without_drain else max(done, m.busy_until)


def command(world, nic_number, slot):
    """COMMAND: decode a slot; schedule its completion."""
    n = nic(world, nic_number)
    c = control(world, 0)
    at = slot_address(n, slot)
    opcode = load32(at)
    n.commands += 1
    trace(world, EV_COMMAND, nic_number, opcode, slot, 0, 0)
    done = c.now
    status = check_pages_or_token(world, n, opcode, at)
    if status == OK:
        if opcode == UPDATE_MTT:
            done += n.mtt_update_ns + param(at, 2) * n.mtt_update_page_ns
        elif opcode == ZAP_MTT:
            done = zap(world, n, at)
        elif opcode == PAGE_FAULT_RESUME:
            push(world, c.now + n.resume_ns, units.RESUME, param(at, 0), param(at, 1))
        else:
            status = execute(world, n, opcode, at)
            if opcode == DESTROY_MKEY and status == OK:
                done = max(done, mkey(world, mkey_row(n, at)).busy_until)
    store32(at + abi.COMMAND_STATUS, status)
    push(world, done, units.COMMAND_DONE, nic_number, slot)
    return 0


def command_done(world, nic_number, slot):
    """COMMAND_DONE: MTT entries appear; the completion EQE goes out."""
    n = nic(world, nic_number)
    at = slot_address(n, slot)
    opcode = load32(at)
    status = load32(at + abi.COMMAND_STATUS)
    if opcode == UPDATE_MTT and status == OK:
        row = mkey_row(n, at)
        if mkey(world, row).valid:
            mtt.update(world, nic_number, row, param(at, 1), param(at, 2), load64(at + abi.COMMAND_MAILBOX))
    trace(world, EV_DONE, nic_number, opcode, slot, status, 0)
    post_eqe(world, n.eq_base + COMMAND_EQN, CMD, 0, (slot, status, 0, 0, 0, 0, control(world, 0).now))
    return 0
