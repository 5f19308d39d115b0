"""The command queue: the only way the driver changes device tables.

A command is decoded ``command_ns`` after its doorbell. UPDATE_MTT takes effect when it completes; ZAP_MTT clears
entries and flushes the IOTLB at once and completes when DMA translated before has drained. The completion is an EQE.
"""

from nicemu._jit import jit, load32, store32
from nicemu.abi import command as abi
from nicemu.abi.command import Command, Status
from nicemu.abi.rings import EqeType
from nicemu.nic import mkey_command
from nicemu.nic.command_slot import param, slot_address
from nicemu.nic.eq import post_eqe
from nicemu.nic.mkey_command import is_mkey_command
from nicemu.nic.psn import in_range
from nicemu.nic.qp_command import object_command
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.rows import control, cq, nic
from nicemu.tables.trace import Ev, trace

NOP, CREATE_CQ, DESTROY_CQ = int(Command.NOP), int(Command.CREATE_CQ), int(Command.DESTROY_CQ)
UPDATE_MTT, PAGE_FAULT_RESUME = int(Command.UPDATE_MTT), int(Command.PAGE_FAULT_RESUME)
OK, BAD_RESOURCE = 0, int(Status.BAD_RESOURCE)
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
    return OK if opcode == NOP else object_command(world, n, opcode, at)


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
