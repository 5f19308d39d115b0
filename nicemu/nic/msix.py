"""MSI-X: a vector per event queue, with mask, function mask and pending bits (PCI 3.0, 6.8.2), and moderation.

Moderation is the device's own: a message goes out at the event of number ``moderation_count``, or ``moderation_ns``
after the first one, whichever comes first. Firmware is asked at each event, and may say another time.
"""

from nicemu._jit import jit
from nicemu.nic import hooks
from nicemu.nic.hooks import ask_ns
from nicemu.tables import units
from nicemu.tables.rows import control, message, msix, nic
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push

INTERRUPT = int(Ev.INTERRUPT)


@jit
def assert_vector(world, eq_row, nic_number):
    """Raise the vector of an event queue; a message in flight is enough."""
    row = msix(world, eq_row)
    n = nic(world, nic_number)
    if row.queued and row.masked == 0:
        return
    wait = ask_ns(world, nic_number, hooks.INTERRUPT_MODERATION, eq_row, n.moderation_ns)
    if wait <= 0 or row.masked or n.function_masked:
        send(world, eq_row, nic_number)
        return
    row.coalesced += 1
    if n.moderation_count > 0 and row.coalesced >= n.moderation_count:
        send(world, eq_row, nic_number)
        return
    n.interrupts_coalesced += 1
    if row.deadline == 0:
        c = control(world, 0)
        row.deadline = c.now + wait
        if row.timer_event:
            c.stale -= 1
        else:
            row.timer_event = 1
            push(world, row.deadline, units.VECTOR_TIMER, eq_row, nic_number)


@jit
def send(world, eq_row, nic_number):
    """Send the vector's message, or keep it pending while masked."""
    row = msix(world, eq_row)
    n = nic(world, nic_number)
    c = control(world, 0)
    row.coalesced = 0
    if row.deadline != 0:
        row.deadline = 0
        c.stale += 1
    if row.masked or n.function_masked:
        row.pending = 1
        return
    if row.queued:
        return
    row.queued = 1
    row.asserted_at = c.now
    push(world, c.now + n.interrupt_ns, units.INTERRUPT, eq_row, nic_number)


def moderated(world, eq_row, nic_number):
    """VECTOR_TIMER: the time since the first event is over."""
    row = msix(world, eq_row)
    c = control(world, 0)
    if row.deadline == 0:
        row.timer_event = 0
        c.stale -= 1
    elif c.now < row.deadline:
        push(world, row.deadline, units.VECTOR_TIMER, eq_row, nic_number)
    else:
        row.timer_event = 0
        row.deadline = 0
        send(world, eq_row, nic_number)
    return 0


def interrupt(world, eq_row, nic_number):
    """INTERRUPT: the message reaches the host, unless the vector was masked meanwhile."""
    row = msix(world, eq_row)
    row.queued = 0
    c = control(world, 0)
    n = nic(world, nic_number)
    if row.masked or n.function_masked:
        row.pending = 1
        return 0
    number = eq_row - n.eq_base
    at = message(world, c.interrupts)
    at.nic = nic_number
    at.vector = number
    c.interrupts += 1
    row.count += 1
    n.interrupts += 1
    trace(world, INTERRUPT, nic_number, number, 0, c.now - row.asserted_at, 0)
    return 0
