"""Linux soft-RoCE (rxe): page faults are served where they happen, timers tick in jiffies.

Imitates drivers/infiniband/sw/rxe of Linux 7.3, on a kernel with 250 ticks a second (Debian's).
"""

JIFFY_NS = 4_000_000


def ack_timeout(world, row, arg):
    """rxe_qp.c: ``nsecs_to_jiffies``, which rounds down, and at least one."""
    return max(arg // JIFFY_NS, 1) * JIFFY_NS


def rnr_wait(world, row, arg):
    """rxe_comp.c rnrnak_jiffies: ``usecs_to_jiffies``, which rounds up."""
    return -(-arg // JIFFY_NS) * JIFFY_NS
