"""The command queue: the only way the driver changes device tables.

A command is decoded ``command_ns`` after its doorbell. UPDATE_MTT takes effect when it completes; ZAP_MTT clears
entries and flushes the IOTLB at once and completes when DMA translated before has drained; so does MODIFY_QP when the
bytes that the QP accepted are in memory. The completion is an EQE.
"""

from nicemu._jit import jit, load32, store32, store64
from nicemu.abi import command as abi
from nicemu.abi.command import Command, Status
from nicemu.abi.rings import EqeType
from nicemu.nic import cq_command, mkey_command
from nicemu.nic.command_slot import mailbox, param, slot_address
from nicemu.nic.cq_command import is_cq_command
from nicemu.nic.eq import post_eqe
from nicemu.nic.mkey_command import is_mkey_command
from nicemu.nic.page_fault import resume_time
from nicemu.nic.psn import in_range
from nicemu.nic.qp_command import landed, object_command
from nicemu.nic.rss import rqt_command
from nicemu.nic.steering import DESTROY_FLOW, DESTROY_RQT, flow_command, is_raw_command
from nicemu.tables import units
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.tables.rows import control, nic
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push

NOP, UPDATE_MTT, ZAP_MTT = int(Command.NOP), int(Command.UPDATE_MTT), int(Command.ZAP_MTT)
DESTROY_MKEY, DESTROY_CQ, DESTROY_QP = int(Command.DESTROY_MKEY), int(Command.DESTROY_CQ), int(Command.DESTROY_QP)
DESTROY_SRQ, DESTROY_AH = int(Command.DESTROY_SRQ), int(Command.DESTROY_AH)
DETACH_MCAST, FREE_DM = int(Command.DETACH_MCAST), int(Command.FREE_DM)
PAGE_FAULT_RESUME, MODIFY_QP = int(Command.PAGE_FAULT_RESUME), int(Command.MODIFY_QP)
OK, BAD_RESOURCE, INTERNAL_ERROR = 0, int(Status.BAD_RESOURCE), int(Status.INTERNAL_ERROR)
CMD, COMMAND_EQN = int(EqeType.CMD), 1
EV_COMMAND, EV_DONE = int(Ev.COMMAND), int(Ev.COMMAND_DONE)


@jit
def execute(world, n, opcode, at):
    """Commands that take effect when they are decoded."""
    if is_cq_command(opcode):
        return cq_command.execute(world, n, opcode, at)
    if is_raw_command(opcode):
        is_flow = opcode <= DESTROY_FLOW
        return flow_command(world, n, opcode, at) if is_flow else rqt_command(world, n, opcode, at)
    return OK if opcode == NOP else object_command(world, n, opcode, at)


@jit
def check_token(n, at):
    """Status of a resume: its token names a fault of this NIC."""
    known = in_range(param(at, 0), 1, n.qp_base * FAULTS_PER_QP, n.qp_count * FAULTS_PER_QP)
    return OK if known else BAD_RESOURCE


@jit
def resume_later(world, n, at):
    """PAGE_FAULT_RESUME: firmware restarts the queue after a while; the mailbox, if there is one, says when."""
    when = control(world, 0).now + resume_time(world, n, param(at, 0))
    if mailbox(at) != 0:
        store64(mailbox(at), when)
    push(world, when, units.RESUME, param(at, 0), param(at, 1))


@jit
def frees(opcode):
    """It gives something back: a dead device lets the driver clean up (``mlx5_internal_err_ret_value``)."""
    if opcode == DESTROY_MKEY or opcode == DESTROY_CQ or opcode == DESTROY_QP or opcode == DESTROY_SRQ:
        return True
    if opcode == DESTROY_AH or opcode == DETACH_MCAST or opcode == FREE_DM:
        return True
    if opcode == DESTROY_FLOW or opcode == DESTROY_RQT:
        return True
    return opcode == ZAP_MTT or opcode == PAGE_FAULT_RESUME


@jit
def refusal(at):
    """The error that an injected fault has this command answered with (``abi.command.ANSWER``), or OK."""
    status = load32(at + abi.COMMAND_STATUS) - abi.ANSWER
    return status if OK < status <= INTERNAL_ERROR else OK


def command(world, nic_number, slot):
    """COMMAND: decode a slot; schedule its completion."""
    n = nic(world, nic_number)
    now = control(world, 0).now
    at = slot_address(n, slot)
    opcode = load32(at)
    n.commands += 1
    trace(world, EV_COMMAND, nic_number, opcode, slot, 0, 0)
    done = now
    status = refusal(at)
    if status != OK:
        pass
    elif n.fatal and not frees(opcode):
        status = INTERNAL_ERROR
    elif is_mkey_command(opcode):
        status = mkey_command.execute(world, n, opcode, at)
        if status == OK:
            done = mkey_command.completes_at(world, n, opcode, at)
    elif opcode == PAGE_FAULT_RESUME:
        status = check_token(n, at)
        if status == OK:
            resume_later(world, n, at)
    else:
        status = execute(world, n, opcode, at)
        if opcode == MODIFY_QP and status == OK:
            done = max(now, landed(world, n, at))
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
