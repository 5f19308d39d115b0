"""The command queue: the only way the driver changes device tables.

A command is decoded ``command_ns`` after its doorbell. UPDATE_MTT takes effect when it completes; ZAP_MTT clears
entries and flushes the IOTLB at once and completes when DMA translated before has drained. The completion is an EQE.
"""

from nicemu._jit import jit, load32, store32
from nicemu.abi import command as abi
from nicemu.abi.command import Command, Status
from nicemu.abi.rings import EqeType
from nicemu.nic import mkey_command
from nicemu.nic.command_slot import mailbox, param, slot_address
from nicemu.nic.eq import post_eqe
from nicemu.nic.mkey_command import is_mkey_command
from nicemu.nic.psn import in_range
from nicemu.nic.qp_context import modify_qp, query_qp
from nicemu.nic.qp_state import reset
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.records import FAULTS_PER_QP, RESOURCES_PER_QP
from nicemu.tables.rows import control, cq, nic, qp
from nicemu.tables.trace import Ev, trace

(
    NOP,
    CREATE_MKEY,
    DESTROY_MKEY,
    CREATE_CQ,
    DESTROY_CQ,
    CREATE_QP,
    MODIFY_QP,
    QUERY_QP,
    DESTROY_QP,
    UPDATE_MTT,
    ZAP_MTT,
    PAGE_FAULT_RESUME,
    CREATE_SRQ,
    MODIFY_SRQ,
    QUERY_SRQ,
    DESTROY_SRQ,
    RESIZE_SRQ,
    CREATE_AH,
    DESTROY_AH,
    ATTACH_MCAST,
    DETACH_MCAST,
    SET_GID,
    RESIZE_CQ,
    MODIFY_CQ,
    MODIFY_MKEY,
    ALLOC_DM,
    FREE_DM,
) = (int(opcode) for opcode in Command)
OK, BAD_OPCODE = 0, int(Status.BAD_OPCODE)
BAD_RESOURCE = int(Status.BAD_RESOURCE)
CMD, COMMAND_EQN = int(EqeType.CMD), 1
EV_COMMAND, EV_DONE = int(Ev.COMMAND), int(Ev.COMMAND_DONE)


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
def create_qp(world, n, at):
    """CREATE_QP: the QP starts in RESET."""
    qpn = param(at, 0)
    if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid:
        return BAD_RESOURCE
    row = n.qp_base + qpn
    q = qp(world, row)
    q.nic = n.number
    q.number = qpn
    q.type = param(at, 1)
    q.pd = param(at, 2)
    q.send_cq = n.cq_base + param(at, 3)
    q.recv_cq = n.cq_base + param(at, 4)
    q.sq_ring = param(at, 5)
    q.sq_slots = param(at, 6)
    q.sq_stride = param(at, 7)
    q.rq_ring = param(at, 8)
    q.rq_slots = param(at, 9)
    q.rq_stride = param(at, 10)
    q.doorbell_record = param(at, 11)
    q.all_signaled = param(at, 12) & 1
    q.sq_entry = param(at, 13)
    q.av = n.av_base + n.av_count + qpn
    q.valid = 1
    q.resource_base = row * RESOURCES_PER_QP
    reset(world, row)
    return OK


@jit
def destroy_qp(world, n, at):
    """DESTROY_QP."""
    qpn = param(at, 0)
    if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid == 0:
        return BAD_RESOURCE
    row = n.qp_base + qpn
    q = qp(world, row)
    reset(world, row)
    q.valid = 0
    return OK


@jit
def execute(world, n, opcode, at):
    """Commands that take effect when they are decoded."""
    if opcode == CREATE_CQ:
        return create_cq(world, n, at)
    if opcode == DESTROY_CQ:
        cqn = param(at, 0)
        if not 0 < cqn < n.cq_count or cq(world, n.cq_base + cqn).valid == 0:
            return BAD_RESOURCE
        cq(world, n.cq_base + cqn).valid = 0
        return OK
    if opcode == CREATE_QP:
        return create_qp(world, n, at)
    if opcode == MODIFY_QP or opcode == QUERY_QP:
        qpn = param(at, 0)
        if not 0 < qpn < n.qp_count or qp(world, n.qp_base + qpn).valid == 0:
            return BAD_RESOURCE
        if opcode == MODIFY_QP:
            return modify_qp(world, n.qp_base + qpn, param(at, 1), mailbox(at))
        return query_qp(world, n.qp_base + qpn, mailbox(at))
    if opcode == DESTROY_QP:
        return destroy_qp(world, n, at)
    return OK if opcode == NOP else BAD_OPCODE


@jit
def check_token(n, at):
    """Status of a resume: its token names a fault of this NIC."""
    known = in_range(param(at, 0), 1, n.qp_base * FAULTS_PER_QP, n.qp_count * FAULTS_PER_QP)
    return OK if known else BAD_RESOURCE


def command(world, nic_number, slot):
    """COMMAND: decode a slot; schedule its completion."""
    n = nic(world, nic_number)
    now = control(world, 0).now
    at = slot_address(n, slot)
    opcode = load32(at)
    n.commands += 1
    trace(world, EV_COMMAND, nic_number, opcode, slot, 0, 0)
    done = now
    if is_mkey_command(opcode):
        status = mkey_command.execute(world, n, opcode, at)
        if status == OK:
            done = mkey_command.completes_at(world, n, opcode, at)
    elif opcode == PAGE_FAULT_RESUME:
        status = check_token(n, at)
        if status == OK:
            push(world, now + n.resume_ns, units.RESUME, param(at, 0), param(at, 1))
    else:
        status = execute(world, n, opcode, at)
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
        mkey_command.update_mtt(world, n, at)
    trace(world, EV_DONE, nic_number, opcode, slot, status, 0)
    post_eqe(world, n.eq_base + COMMAND_EQN, CMD, 0, (slot, status, 0, 0, 0, 0, control(world, 0).now))
    return 0
