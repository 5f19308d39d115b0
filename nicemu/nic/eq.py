"""Event queues: EQEs into host rings, owner word last; an armed queue raises its MSI-X vector."""

from nicemu._jit import jit, load64, store32, store64
from nicemu.abi.rings import EQE_BYTES, EQE_DATA, EQE_OWNER, EQE_SUBTYPE, EQE_TIME, EQE_TYPE, EqeType
from nicemu.nic.msix import assert_vector
from nicemu.tables.rows import eq, nic
from nicemu.tables.trace import Ev, trace

EQE, ASYNC = int(Ev.EQE), int(EqeType.ASYNC)
ASYNC_EQN = 2


@jit
def post_eqe(world, row, kind, subtype, words):
    """Write an EQE. ``words``: six int64 and when it happened, ns. A full queue loses the event and counts it."""
    e = eq(world, row)
    if e.valid == 0:
        return
    if e.produced - load64(e.doorbell_record) >= e.slots:
        e.lost += 1
        return
    at = e.ring + (e.produced & (e.slots - 1)) * EQE_BYTES
    store32(at + EQE_TYPE, kind)
    store32(at + EQE_SUBTYPE, subtype)
    for i in range(6):
        store64(at + EQE_DATA + 8 * i, words[i])
    store32(at + EQE_TIME, words[6] & 0xFFFFFFFF)
    store32(at + EQE_OWNER, (e.produced // e.slots + 1) & 1)
    e.produced += 1
    trace(world, EQE, e.nic, e.number, kind, subtype, words[0])
    if e.armed:
        e.armed = 0
        assert_vector(world, row, e.nic)


@jit
def post_async(world, nic_number, event_type, number):
    """An async event about object ``number``."""
    post_eqe(world, nic(world, nic_number).eq_base + ASYNC_EQN, ASYNC, event_type, (number, 0, 0, 0, 0, 0, 0))


def arm(world, row, _):
    """EQ_ARM: an interrupt for the next EQE, at once if one is already there."""
    e = eq(world, row)
    if e.valid == 0:
        return 0
    if e.produced > load64(e.doorbell_record):
        assert_vector(world, row, e.nic)
    else:
        e.armed = 1
    return 0
