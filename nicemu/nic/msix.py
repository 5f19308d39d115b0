"""MSI-X: a vector per event queue, with mask and pending bits (PCI 3.0, 6.8.2)."""

from nicemu._jit import jit
from nicemu.tables import units
from nicemu.tables.heap import push
from nicemu.tables.rows import control, message, msix, nic
from nicemu.tables.trace import Ev, trace

INTERRUPT = int(Ev.INTERRUPT)


@jit
def assert_vector(world, eq_row, nic_number):
    """Raise the vector of an event queue; a message in flight is enough."""
    row = msix(world, eq_row)
    if row.masked:
        row.pending = 1
        return
    if row.queued:
        return
    row.queued = 1
    c = control(world, 0)
    row.asserted_at = c.now
    push(world, c.now + nic(world, nic_number).interrupt_ns, units.INTERRUPT, eq_row, nic_number)


def interrupt(world, eq_row, nic_number):
    """INTERRUPT: the message reaches the host, unless the vector was masked meanwhile."""
    row = msix(world, eq_row)
    row.queued = 0
    if row.masked:
        row.pending = 1
        return 0
    c = control(world, 0)
    n = nic(world, nic_number)
    at = message(world, c.interrupts)
    at.nic = nic_number
    at.vector = eq_row - n.eq_base
    c.interrupts += 1
    row.count += 1
    n.interrupts += 1
    trace(world, INTERRUPT, nic_number, at.vector, 0, 0, 0)
    return 0
