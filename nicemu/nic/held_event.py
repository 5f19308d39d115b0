"""Back-pressure of event queues: what found a queue full is posted, oldest first, when the consumer has made room."""

from nicemu._jit import jit
from nicemu.nic.cq import release_event
from nicemu.nic.device_event import report_fatal
from nicemu.nic.eq import ASYNC_EQN, PAGE_FAULT_EQN, is_full
from nicemu.nic.page_fault import release_fault
from nicemu.tables.rows import cq, eq, fault


@jit
def take_held(world, row):
    """Take the oldest row off the queue's held list."""
    e = eq(world, row)
    thing = e.held_head
    e.held_head = fault(world, thing).next_held if e.number == PAGE_FAULT_EQN else cq(world, thing).next_held
    e.held -= 1
    return thing


def release(world, row, _):
    """RELEASE_HELD."""
    e = eq(world, row)
    if e.number == ASYNC_EQN:
        report_fatal(world, e.nic)
    while e.held > 0 and not is_full(world, row):
        thing = take_held(world, row)
        if e.number == PAGE_FAULT_EQN:
            release_fault(world, thing)
        else:
            release_event(world, thing)
    return 0
