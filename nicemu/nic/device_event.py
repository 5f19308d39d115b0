"""What happens to the device as a whole: its port goes down or comes up, or it dies (unaffiliated async events).

A dead device (mlx5 "internal error") moves no byte more: its QPs go to ERR and flush, commands fail except those that
give something back, and DEVICE_FATAL is raised once.
"""

from nicemu._jit import call, jit
from nicemu.abi.verbs import AsyncEvent
from nicemu.nic.eq import ASYNC_EQN, is_full, post_async
from nicemu.tables import units
from nicemu.tables.rows import nic, qp, vector

DEVICE_FATAL, PORT_ERR = int(AsyncEvent.DEVICE_FATAL), int(AsyncEvent.PORT_ERR)
PORT_ACTIVE = int(AsyncEvent.PORT_ACTIVE)
PORT = 1
UNREPORTED = 2


def device_event(world, nic_number, event):
    """DEVICE_EVENT: PORT_ERR, PORT_ACTIVE or DEVICE_FATAL happens now; what is so already raises nothing."""
    n = nic(world, nic_number)
    if event == DEVICE_FATAL:
        if n.fatal == 0:
            die(world, nic_number)
        return 0
    down = 1 if event == PORT_ERR else 0
    if n.port_down != down:
        n.port_down = down
        post_async(world, nic_number, event, PORT)
    return 0


@jit
def die(world, nic_number):
    """Every QP to ERR: what is posted flushes. The event waits for room in the async EQ."""
    n = nic(world, nic_number)
    n.fatal = UNREPORTED
    for row in range(n.qp_base + 1, n.qp_base + n.qp_count):
        if qp(world, row).valid:
            call(vector(world, units.QP_ERROR).address, world, row, 0)
    report_fatal(world, nic_number)


@jit
def report_fatal(world, nic_number):
    """DEVICE_FATAL, unless it is out already or there is still no room for it."""
    n = nic(world, nic_number)
    if n.fatal == UNREPORTED and not is_full(world, n.eq_base + ASYNC_EQN):
        n.fatal = 1
        post_async(world, nic_number, DEVICE_FATAL, 0)
