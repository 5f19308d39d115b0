"""Pause: a switch that holds too much of one ingress port stops what is plugged into it (priority flow control, with
one priority).

Bytes in the output queues are charged to the port they came in by. At XOFF a pause goes back over the cable, at XON the
end of it; both take the cable's delay. What is on its way meanwhile is taken in: headroom is without limit.
"""

from nicemu._jit import jit
from nicemu.tables import units
from nicemu.tables.rows import control, fabric, link
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push

LINK_PAUSE = int(Ev.LINK_PAUSE)


@jit
def charge(world, way, size):
    """``size`` bytes that came in over link ``way`` wait in the switch."""
    wire = link(world, way)
    f = fabric(world, 0)
    wire.ingress_bytes += size
    if f.xoff > 0 and wire.xoff_sent == 0 and wire.ingress_bytes >= f.xoff:
        wire.xoff_sent = 1
        push(world, control(world, 0).now + wire.delay_ns, units.PAUSE, way, 1)


@jit
def release(world, way, size):
    """They left."""
    wire = link(world, way)
    wire.ingress_bytes -= size
    if wire.xoff_sent == 1 and wire.ingress_bytes <= fabric(world, 0).xon:
        wire.xoff_sent = 0
        push(world, control(world, 0).now + wire.delay_ns, units.PAUSE, way, 0)


def pause(world, way, paused):
    """PAUSE: the pause reaches the sender, between two packets; or its end does."""
    wire = link(world, way)
    wire.paused = paused
    wire.pauses += paused
    trace(world, LINK_PAUSE, wire.nic, paused, 0, 0, 0)
    if paused == 0 and wire.head != 0 and wire.event == 0:
        wire.event = 1
        push(world, wire.free_at, units.LINK_FREE, way, 0)
    return 0
