"""Proof that an injected fault fired: one row each, in a ring, with the number that the packet carries from then on."""

from nicemu._jit import jit
from nicemu.tables.records import FIRED_ROWS
from nicemu.tables.rows import control, fabric, fired, impair, link, packet
from nicemu.tables.trace import Ev, trace

INJECT = int(Ev.INJECT)


@jit
def row_of(number):
    """Row of fault ``number`` (from 1), as long as the ring has not come round."""
    return 1 + (number - 1) % (FIRED_ROWS - 1)


@jit
def record(world, i, way, p, did):
    """Impairment ``i`` hit packet ``p`` on link ``way``; ``did`` is the detail that its text names."""
    f = fabric(world, 0)
    f.fired += 1
    rule = impair(world, i)
    rule.fired += 1
    row = packet(world, p)
    r = fired(world, row_of(f.fired))
    r.number = f.fired
    r.impairment = i
    r.time = control(world, 0).now
    r.link = way
    r.transport = row.transport
    r.operation = row.opcode
    r.psn = row.psn
    r.qpn = row.dest_qpn
    r.did = did
    r.previous = row.fault
    row.fault = f.fired
    trace(world, INJECT, link(world, way).nic, i, f.fired, row.opcode, row.psn)
