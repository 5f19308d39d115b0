"""Event queues: EQEs into host rings, owner word last; an armed queue raises its MSI-X vector.

What happens when a queue is full depends on what it is for. A page-fault EQE must not be lost (its QP would stand still
for ever) nor a completion event (its program would): the device holds them and posts them when the consumer counter
moves. An async event or a command completion is lost, and as on mlx5, where an EQ overrun is fatal, the device goes
down with DEVICE_FATAL.
"""

from nicemu._jit import acquire64, call, cold, jit, store32, store64
from nicemu.abi.rings import EQE_BYTES, EQE_DATA, EQE_OWNER, EQE_SUBTYPE, EQE_TIME, EQE_TYPE, EqeType
from nicemu.abi.verbs import AsyncEvent
from nicemu.nic import hooks
from nicemu.nic.hooks import ask
from nicemu.nic.msix import assert_vector
from nicemu.tables import units
from nicemu.tables.rows import control, eq, msix, nic, vector
from nicemu.tables.trace import Ev, trace
from nicemu.tables.wheel import push

EQE, ASYNC = int(Ev.EQE), int(EqeType.ASYNC)
ASYNC_EQN = 2
PAGE_FAULT_EQN = 3
DEVICE_FATAL = int(AsyncEvent.DEVICE_FATAL)


@jit
def is_full(world, row):
    """No room for another EQE."""
    e = eq(world, row)
    return e.produced - acquire64(e.doorbell_record) >= e.slots


@jit
def post_eqe(world, row, kind, subtype, words):
    """Write an EQE. ``words``: six int64 and when it happened, ns. False: the queue is full."""
    e = eq(world, row)
    if e.valid == 0:
        return True
    if is_full(world, row):
        if e.number <= ASYNC_EQN:
            overrun(world, row)
        return False
    at = e.ring + (e.produced & (e.slots - 1)) * EQE_BYTES
    store32(at + EQE_TYPE, kind)
    store32(at + EQE_SUBTYPE, subtype)
    for i in range(6):
        store64(at + EQE_DATA + 8 * i, words[i])
    store32(at + EQE_TIME, words[6] & 0xFFFFFFFF)
    store32(at + EQE_OWNER, (e.produced // e.slots + 1) & 1)
    e.produced += 1
    trace(world, EQE, e.nic, e.number, kind, subtype, words[0])
    if e.armed or msix(world, row).coalesced > 0:
        e.armed = 0
        assert_vector(world, row, e.nic)
    return True


@jit
def overrun(world, row):
    """An event nobody will hear of: count it and bring the device down."""
    e = eq(world, row)
    e.lost += 1
    n = nic(world, e.nic)
    n.events_lost += 1
    if n.fatal == 0:
        push(world, control(world, 0).now, units.DEVICE_EVENT, e.nic, DEVICE_FATAL)


@jit
def link_held(world, row, thing):
    """Append a row, which its predecessor names already, to the queue's held list."""
    e = eq(world, row)
    if e.held_head == 0:
        e.held_head = thing
    e.held_tail = thing
    e.held += 1


@cold
def post_async(world, nic_number, event_type, number):
    """An async event about object ``number``, if firmware reports such events. False: it is lost."""
    if ask(world, nic_number, hooks.ASYNC_EVENT, nic_number, event_type) == 0:
        return True
    row = nic(world, nic_number).eq_base + ASYNC_EQN
    return post_eqe(world, row, ASYNC, event_type, (number, 0, 0, 0, 0, 0, 0))


def arm(world, row, _):
    """EQ_ARM: the consumer counter has moved; an interrupt for the next EQE, at once if one is already there."""
    e = eq(world, row)
    if e.valid == 0:
        return 0
    if e.held > 0 or nic(world, e.nic).fatal > 1:
        call(vector(world, units.RELEASE_HELD).address, world, row, 0)
    if e.produced > acquire64(e.doorbell_record):
        assert_vector(world, row, e.nic)
    else:
        e.armed = 1
    return 0
