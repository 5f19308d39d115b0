"""What the host does to doorbells and the clock, several times for each thing it asks, in one call each."""

from nicemu._jit import entry
from nicemu.abi.rings import Doorbell
from nicemu.nic.qp_state import ERR
from nicemu.tables import units
from nicemu.tables.rows import control, nic, qp
from nicemu.tables.wheel import push

SEND, CQ_ARM, EQ_ARM, COMMAND, RECV, TAG_OPS = map(int, Doorbell)


@entry("void(int64, int64, int64, int64)")
def write_doorbell(world, nic_number, offset, value):
    """A write to the doorbell BAR: ``abi.rings.doorbell_offset(bank, number)``. What no object has is not heard."""
    n = nic(world, nic_number)
    bank, number = offset >> 24, (offset & 0xFFFFFF) >> 3
    when = control(world, 0).now + n.doorbell_ns
    if bank == COMMAND:
        push(world, when + n.command_ns, units.COMMAND, nic_number, number)
    elif bank == EQ_ARM:
        if 0 < number < n.eq_count:
            push(world, when, units.EQ_ARM, n.eq_base + number, 0)
    elif bank == CQ_ARM:
        if 0 < number < n.cq_count:
            push(world, when, units.CQ_ARM, n.cq_base + number, value)
    elif bank == TAG_OPS:
        if 0 < number < n.srq_count:
            push(world, when, units.TAG_OPERATION, n.srq_base + number, 0)
    elif 0 < number < n.qp_count:
        if bank == SEND:
            push(world, when, units.DOORBELL, n.qp_base + number, 0)
        elif bank == RECV and qp(world, n.qp_base + number).state == ERR:
            push(world, when, units.DOORBELL, n.qp_base + number, 1)


@entry("void(int64, int64)")
def set_time(world, time):
    """Move the clock forward."""
    c = control(world, 0)
    if time > c.now:
        c.now = time
